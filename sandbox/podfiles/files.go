// Package podfiles writes the files of a pod that are bind mounted into its containers: /etc/hosts, /etc/hostname and
// /etc/resolv.conf, and mounts the /dev/shm of the pod. It does not know when they are written or removed.
package podfiles

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

// maxHostFile bounds the size of the files that are copied from the host, in bytes.
const maxHostFile = 1 << 20

// The names of the files in the directory of a pod.
const (
	Hosts      = "hosts"
	Hostname   = "hostname"
	ResolvConf = "resolv.conf"
	Shm        = "shm"
)

// Dir is the directory of a pod.
type Dir struct {
	Path string
	// UID and GID are the host ids of root of the containers, who owns the files.
	UID, GID uint32
	// Label labels a file for the containers of the pod. It is nil without SELinux.
	Label func(path string) error
}

// write writes a file that is bind mounted to /etc in containers.
func (d Dir) write(name string, content []byte) error {
	path := filepath.Join(d.Path, name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		return err
	}
	err := os.Chown(path, int(d.UID), int(d.GID))
	if d.Label != nil {
		err = errors.Join(err, d.Label(path))
	}
	return err
}

// WriteHostname writes the host name of the pod.
func (d Dir) WriteHostname(name string) error {
	if err := d.write(Hostname, []byte(name+"\n")); err != nil {
		return fmt.Errorf("create hostname: %w", err)
	}
	return nil
}

// WriteResolvConf writes the pod's resolv.conf: see NewResolvConf.
func (d Dir) WriteResolvConf(dns *types.DNS) error {
	content, err := NewResolvConf(dns)
	if err == nil {
		err = d.write(ResolvConf, content)
	}
	if err != nil {
		return fmt.Errorf("create resolv.conf: %w", err)
	}
	return nil
}

// NewResolvConf returns the content of the pod's resolv.conf. If the request has no DNS config, it is
// the content of the host's resolv.conf. If the DNS config is empty, resolv.conf is empty: the
// kubelet sends an empty DNS config if its own resolv.conf has no entries.
func NewResolvConf(d *types.DNS) ([]byte, error) {
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

// LocalHosts is the first part of the /etc/hosts of every pod that does not have the network of the host.
const LocalHosts = `127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::0	ip6-localnet
fe00::0	ip6-mcastprefix
fe00::1	ip6-allnodes
fe00::2	ip6-allrouters
`

// WriteHosts writes the pod's /etc/hosts, which has the addresses of the pod. A pod with the network of the host gets
// the content of the file of the host, unless that file is empty.
func (d Dir) WriteHosts(ips []netip.Addr, hostName string, hostNetwork bool) error {
	content := hosts(ips, hostName)
	if hostNetwork {
		host, err := readHostFile("/etc/hosts")
		if err != nil {
			return fmt.Errorf("create hosts: %w", err)
		}
		if len(host) > 0 {
			content = host
		}
	}
	if err := d.write(Hosts, content); err != nil {
		return fmt.Errorf("create hosts: %w", err)
	}
	return nil
}

// hosts returns the content of the pod's /etc/hosts. Each address has the host name of the pod, and its first label if
// the name is qualified. A name with a trailing dot is listed without the dot too, because programs look up both forms.
func hosts(ips []netip.Addr, name string) []byte {
	b := []byte(LocalHosts)
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

// MountShm mounts the pod's /dev/shm with a size in bytes. label is an SELinux label, or "". The pod must have its own
// IPC namespace.
func (d Dir) MountShm(size int64, label string) error {
	target := filepath.Join(d.Path, Shm)
	options := shmOptions(size, d.UID, d.GID, label)
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

// Remove removes the files and the unmounted directory of the shm.
func (d Dir) Remove() error {
	for _, name := range []string{Hosts, Hostname, ResolvConf, Shm} {
		if err := os.Remove(filepath.Join(d.Path, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
