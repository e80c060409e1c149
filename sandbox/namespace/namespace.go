// Package namespace creates the Linux namespaces of a pod and pins them by bind mounts, so that they exist without a
// process. It enters network namespaces and writes sysctls. The package owns the content of the directory that it gets
// for a pod, and nothing else.
package namespace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/criserver/criserver/internal/osthread"
	"golang.org/x/sys/unix"
)

// The names of the pins in the directory of a pod.
const (
	Net = "net"
	IPC = "ipc"
	UTS = "uts"
	PID = "pid"
	// User is the user namespace that owns the other namespaces.
	User = "user"
)

// All has the names of all pins.
var All = []string{Net, IPC, UTS, PID, User}

// Spec says which namespaces to create and how to configure them.
type Spec struct {
	// Dir is the directory of the pins. Make creates it; its parent must exist.
	Dir           string
	Net, IPC, UTS bool
	// NetName is the path of the name of the network namespace, or "": see [Name].
	NetName string
	// Hostname is the hostname in the new UTS namespace.
	Hostname string
	// Owner is the user namespace that owns the other namespaces; nil if they belong to the host's.
	Owner *Owner
	// Sysctls are written inside the new namespaces. The caller has checked that they affect no other namespace.
	Sysctls []Sysctl
}

// Make creates and pins the namespaces. If Make fails, some namespaces may be pinned; the caller calls Unpin.
func Make(s Spec) error {
	if err := os.Mkdir(s.Dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create namespaces: %w", err)
	}
	run := func() error { return osthread.Run(s.make) }
	if s.Owner != nil {
		run = s.makeInUserNS
	}
	err := run()
	if err == nil && s.Net && s.NetName != "" {
		err = Name(filepath.Join(s.Dir, Net), s.NetName)
	}
	if err != nil {
		return fmt.Errorf("create namespaces: %w", err)
	}
	return nil
}

// requested returns the requested namespaces as names of pins and as CLONE_NEW flags.
func (s Spec) requested() (names []string, flags int) {
	for _, ns := range []struct {
		name string
		flag int
		want bool
	}{{Net, unix.CLONE_NEWNET, s.Net}, {IPC, unix.CLONE_NEWIPC, s.IPC}, {UTS, unix.CLONE_NEWUTS, s.UTS}} {
		if ns.want {
			flags |= ns.flag
			names = append(names, ns.name)
		}
	}
	return names, flags
}

// make creates, pins and configures the namespaces on the calling thread.
func (s Spec) make() error {
	pins, flags := s.requested()
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	for _, name := range pins {
		if err := pin("/proc/thread-self/ns/"+name, filepath.Join(s.Dir, name)); err != nil {
			return err
		}
	}
	return s.configure()
}

// configure configures the namespaces of the calling thread.
func (s Spec) configure() error {
	if s.UTS {
		if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
			return fmt.Errorf("set hostname %q: %w", s.Hostname, err)
		}
	}
	if s.Net {
		// Pods do not accept router advertisements. Otherwise any pod on the bridge could advertise itself as a
		// router and receive the traffic of the other pods. A sysctl of the pod can allow them again.
		err := Sysctl{"net/ipv6/conf/default/accept_ra", "0"}.Write()
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6 does not have the sysctl
			return err
		}
		if err := loopbackUp(); err != nil {
			return err
		}
	}
	if s.IPC && s.Owner != nil {
		if err := s.chownQueues(); err != nil {
			return err
		}
	}
	return s.writeSysctls()
}

// loopbackUp brings up the interface lo, as the CNI plugin loopback does, but without a process.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}

// pin keeps the namespace at source in existence by a bind mount on target.
func pin(source, target string) error {
	f, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pin %s: %w", target, err)
	}
	return nil
}

// Pinned reports whether a namespace is mounted at path.
func Pinned(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// Unpin releases the named pins in the directory of a pod. Pins that do not exist are no error.
func Unpin(dir string, names ...string) error {
	var errs []error
	for _, name := range names {
		if err := Unmount(filepath.Join(dir, name)); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// UnpinAll releases all pins in the directory of a pod and removes the directory.
func UnpinAll(dir string) error {
	if err := Unpin(dir, All...); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// A mount can be busy for a moment, because a tool that looks at all mounts has opened it. Unmount tries again
// for busyTimeout. A lazy unmount would hide a process that keeps using the mount.
const (
	busyTimeout = 5 * time.Second
	busyPause   = 5 * time.Millisecond
)

// Unmount unmounts everything that is mounted on path itself. A path that does not exist or is no mount point is no
// error.
func Unmount(path string) error {
	for end := time.Now().Add(busyTimeout); ; {
		switch err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW); {
		case err == nil: // another mount may be below
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil
		case errors.Is(err, unix.EBUSY) && time.Now().Before(end):
			time.Sleep(busyPause)
		default:
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
}
