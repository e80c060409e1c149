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
	"golang.org/x/sys/unix"
)

// maxHostFile bounds what is copied of the host's files, in bytes.
const maxHostFile = 1 << 20

// The names of a pod's files in its directory.
const (
	hostsFile      = "hosts"
	hostnameFile   = "hostname"
	resolvConfFile = "resolv.conf"
	shmDir         = "shm"
)

// writeFile writes a file that containers see at a path of /etc, as their
// root's.
func (b *build) writeFile(name string, content []byte) error {
	path := filepath.Join(b.m.dirs.pod(b.rec.ID), name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		return err
	}
	uid, gid := b.spec.Namespaces.Root()
	return errors.Join(os.Chown(path, int(uid), int(gid)), b.labelFile(path))
}

// resolvConf returns the pod's resolver configuration. Without a DNSConfig in the
// request it is the host's. An empty DNSConfig is an empty configuration: the
// kubelet sends one if its own resolv.conf has no entries.
func resolvConf(d *types.DNS) ([]byte, error) {
	if d == nil {
		return hostFile("/etc/resolv.conf")
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

// hostFile copies a file of the host; a missing one is empty. It is copied, not
// bound, so that no container can write to the host's.
func hostFile(path string) ([]byte, error) {
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

// hosts returns the pod's /etc/hosts. Each address has the pod's name and, for a
// qualified name, its first part. A name with a trailing dot is listed without the dot
// too, as programs look it up in both forms.
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

// mountShm mounts the pod's /dev/shm, which goes with its IPC namespace and
// belongs to its root.
func (b *build) mountShm() error {
	target := filepath.Join(b.m.dirs.pod(b.rec.ID), shmDir)
	uid, gid := b.spec.Namespaces.Root()
	options := shmOptions(b.m.cfg.ShmSize, uid, gid, b.rec.MountLabel)
	if err := os.Mkdir(target, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("shm", target, "tmpfs", flags, options); err != nil {
		return fmt.Errorf("mount shm: %w", err)
	}
	return nil
}

// shmOptions returns the options of mount(2) for a shm.
func shmOptions(size int64, uid, gid uint32, label string) string {
	options := fmt.Sprintf("mode=1777,size=%d,uid=%d,gid=%d", size, uid, gid)
	if label != "" {
		options += "," + mountopt.Context(label)
	}
	return options
}
