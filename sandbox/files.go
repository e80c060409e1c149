package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/criserver/criserver/internal/mountopt"
	"github.com/criserver/criserver/internal/rootpath"
	"github.com/criserver/criserver/sandbox/podspec"
	"golang.org/x/sys/unix"
)

// maxHostFile bounds the size of the files that are copied from the host, in bytes.
const maxHostFile = 1 << 20

// The names of the files in the directory of a pod.
const (
	hostsFile      = "hosts"
	hostnameFile   = "hostname"
	resolvConfFile = "resolv.conf"
	shmDir         = "shm"
)

// writeFile writes a file that is bind mounted to /etc in containers. The file belongs to root of the containers.
func (b *build) writeFile(name string, content []byte) error {
	path := filepath.Join(b.m.dirs.pod(b.rec.ID), name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		return err
	}
	uid, gid := b.spec.Namespaces.Root()
	return errors.Join(os.Chown(path, int(uid), int(gid)), b.labelFile(path))
}

// hostname returns the host name inside a pod, which is never empty. A pod with the network of the host shares the UTS
// namespace of the host, and thus its host name.
func hostname(id string, spec *podspec.Spec) (string, error) {
	if spec.Namespaces.HostNetwork {
		return os.Hostname()
	}
	if spec.Hostname == "" {
		return id[:12], nil
	}
	return spec.Hostname, nil
}

// resolvConf returns the content of the pod's resolv.conf. If the request has no DNS config, it is
// the content of the host's resolv.conf. If the DNS config is empty, resolv.conf is empty: the
// kubelet sends an empty DNS config if its own resolv.conf has no entries.
func resolvConf(d *types.DNS) ([]byte, error) {
	if d == nil {
		return readHostFile("/etc/resolv.conf")
	}
	var b bytes.Buffer
	if len(d.Search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(d.Search, " "))
	}
	for _, s := range d.Nameservers {
		if s != "" {
			fmt.Fprintf(&b, "nameserver %s\n", s)
		}
	}
	if len(d.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(d.Options, " "))
	}
	return b.Bytes(), nil
}

// readHostFile returns the content of a file of the host, or nothing if the file does not exist. Files of the host are
// copied instead of bind mounted, so that no container can write to them.
func readHostFile(path string) ([]byte, error) {
	b, err := rootpath.ReadFile("/", path, maxHostFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

const localHosts = `127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::0	ip6-localnet
fe00::0	ip6-mcastprefix
fe00::1	ip6-allnodes
fe00::2	ip6-allrouters
`

// hosts writes the pod's /etc/hosts. The network must exist, because the file has the addresses of the pod.
func (b *build) hosts() error {
	content := hosts(b.rec.IPs, b.rec.HostName)
	if b.spec.Namespaces.HostNetwork {
		host, err := readHostFile("/etc/hosts")
		if err != nil {
			return fmt.Errorf("create hosts: %w", err)
		}
		if len(host) > 0 {
			content = host
		}
	}
	if err := b.writeFile(hostsFile, content); err != nil {
		return fmt.Errorf("create hosts: %w", err)
	}
	return nil
}

// hosts returns the content of the pod's /etc/hosts. Each address has the host name of the pod, and its first label if
// the name is qualified. A name with a trailing dot is listed without the dot too, because programs look up both forms.
func hosts(ips []netip.Addr, name string) []byte {
	b := []byte(localHosts)
	names := name
	if plain := strings.TrimRight(name, "."); plain != name && plain != "" {
		names = plain + "\t" + name
	}
	if short, rest, _ := strings.Cut(name, "."); short != "" && strings.Trim(rest, ".") != "" {
		names += "\t" + short
	}
	for _, ip := range ips {
		b = fmt.Appendf(b, "%s\t%s\n", ip, names)
	}
	return b
}

// mountShm mounts the pod's /dev/shm, which belongs to root of the containers. The pod must have its own IPC namespace.
func (b *build) mountShm() error {
	target := filepath.Join(b.m.dirs.pod(b.rec.ID), shmDir)
	uid, gid := b.spec.Namespaces.Root()
	options := shmOptions(b.settings.ShmSize, uid, gid, b.rec.MountLabel)
	if err := os.Mkdir(target, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("shm", target, "tmpfs", flags, options); err != nil {
		return fmt.Errorf("mount shm: %w", err)
	}
	return nil
}

// shmOptions returns the mount options of /dev/shm.
func shmOptions(size int64, uid, gid uint32, label string) string {
	options := fmt.Sprintf("mode=1777,size=%d,uid=%d,gid=%d", size, uid, gid)
	if label != "" {
		options += "," + mountopt.Context(label)
	}
	return options
}

// removeFiles removes the directory of a pod. It removes the record after the other files, because
// the next daemon finds the pod by its record.
func (m *Manager) removeFiles(id string) error {
	dir := m.dirs.pod(id)
	for _, name := range []string{hostsFile, hostnameFile, resolvConfFile, shmDir, recordFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove files: %w", err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove files: %w", err)
	}
	return nil
}
