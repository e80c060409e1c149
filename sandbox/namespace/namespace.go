// Package namespace makes the Linux namespaces of a pod and pins them by bind
// mounts, so that they live without a process. It owns what is in the directory
// it is given for a pod, and nothing else.
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

// The file names of the pins in a pod's directory.
const (
	Net = "net"
	IPC = "ipc"
	UTS = "uts"
	PID = "pid"
	// User owns all the others.
	User = "user"
)

// All are the names of all pins.
var All = []string{Net, IPC, UTS, PID, User}

// Spec says which namespaces to make and how they are to be set up.
type Spec struct {
	// Dir is where the pins go; it is made. Its parent must exist.
	Dir           string
	Net, IPC, UTS bool
	// Hostname is set in the new UTS namespace.
	Hostname string
	// Owner, when set, has the namespaces belong to a user namespace of their own.
	Owner *Owner
	// Sysctls are written inside the new namespaces. The caller has checked that
	// they touch nothing else.
	Sysctls []Sysctl
}

// Sysctl is a kernel parameter by its path below /proc/sys.
type Sysctl struct {
	Path, Value string
}

// Make makes and pins the namespaces. What was pinned when it fails is left for
// Unpin.
func Make(s Spec) error {
	if err := os.Mkdir(s.Dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make namespaces: %w", err)
	}
	run := func() error { return osthread.Run(s.make) }
	if s.Owner != nil {
		run = s.makeOwned
	}
	err := run()
	if err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	return nil
}

// kinds are the kinds of namespaces asked for, as names of pins and as flags.
func (s Spec) kinds() (names []string, flags int) {
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

func (s Spec) make() error {
	pins, flags := s.kinds()
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	for _, name := range pins {
		if err := pin("/proc/thread-self/ns/"+name, filepath.Join(s.Dir, name)); err != nil {
			return err
		}
	}
	return s.furnish()
}

// furnish sets up the calling thread's namespaces.
func (s Spec) furnish() error {
	if s.UTS {
		if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
			return fmt.Errorf("set hostname %q: %w", s.Hostname, err)
		}
	}
	if s.Net {
		// Routers may not announce themselves to pods: anybody on the bridge
		// could, and take their traffic. A sysctl of the pod can undo it.
		err := write(Sysctl{"net/ipv6/conf/default/accept_ra", "0"})
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // no IPv6 in this kernel
			return err
		}
		if err := loopbackUp(); err != nil {
			return err
		}
	}
	if s.IPC && s.Owner != nil {
		if err := s.furnishQueues(); err != nil {
			return err
		}
	}
	return s.writeSysctls()
}

// pin keeps the namespace at source alive by a bind mount on target.
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

// Pinned says whether there is a namespace at path.
func Pinned(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// Unpin releases the named pins in a pod's directory. What is not there is
// released already.
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

// UnpinAll releases all pins and the directory itself.
func UnpinAll(dir string) error {
	if err := Unpin(dir, All...); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// A mount may be busy for a moment, because a tool that looks at all mounts has
// opened it. A lazy unmount would hide a user that stays.
const (
	busyFor   = 5 * time.Second
	busyPause = 5 * time.Millisecond
)

// Unmount unmounts all that is mounted on path itself. A path that is gone or
// is no mount point is no error.
func Unmount(path string) error {
	for end := time.Now().Add(busyFor); ; {
		switch err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW); {
		case err == nil: // there may be another one below
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
			return nil
		case errors.Is(err, unix.EBUSY) && time.Now().Before(end):
			time.Sleep(busyPause)
		default:
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
}
