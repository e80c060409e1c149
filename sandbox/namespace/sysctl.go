package namespace

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/rootpath"
	"golang.org/x/sys/unix"
)

// Sysctl is a kernel parameter. Path is its path below /proc/sys.
type Sysctl struct {
	Path, Value string
}

// Write sets the sysctl in the namespaces of the calling thread. If the kernel does not have the sysctl, the error is
// fs.ErrNotExist.
func (sc Sysctl) Write() error {
	f, err := rootpath.Open("/proc/sys", sc.Path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("set sysctl %s: %w", sc.Path, err)
	}
	_, err = f.WriteString(sc.Value)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set sysctl %s to %q: %w", sc.Path, sc.Value, err)
	}
	return nil
}

// Ensure is like Write, but writes only if the sysctl has another value: the kernel visits all network interfaces when
// some sysctls are written.
func (sc Sysctl) Ensure() error {
	value, err := os.ReadFile("/proc/sys/" + sc.Path)
	if err != nil {
		return fmt.Errorf("read sysctl %s: %w", sc.Path, err)
	}
	if string(bytes.TrimSpace(value)) == sc.Value {
		return nil
	}
	return sc.Write()
}

// WriteSysctls writes sysctls inside the network namespace pinned at path. The error is ErrInvalidArgument if the
// kernel does not have a sysctl or refuses its value.
func WriteSysctls(path string, sysctls []Sysctl) error {
	return RunInNet(path, func() error {
		for _, sc := range sysctls {
			if err := sc.Write(); err != nil {
				return requestError(err)
			}
		}
		return nil
	})
}

// requestError adds ErrInvalidArgument to the errors of the kernel for a sysctl that does not exist and for a value
// that the kernel refuses.
func requestError(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ERANGE) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return err
}

// writeSysctls sets the sysctls of the pod. The kernel lets only the root user of the user namespace write the sysctls
// of an IPC namespace; capabilities do not suffice. writeSysctls writes those sysctls last, because the
// thread becomes that user for good.
func (s Spec) writeSysctls() error {
	var refused []Sysctl
	for _, sc := range s.Sysctls {
		err := sc.Write()
		switch {
		case err == nil:
		case s.Owner != nil && errors.Is(err, fs.ErrPermission):
			refused = append(refused, sc)
		case s.Owner != nil && errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(sc.Path, "net/"):
			return fmt.Errorf("the kernel does not have the sysctl in a network namespace of a user namespace: %w", requestError(err))
		default:
			return requestError(err)
		}
	}
	if len(refused) == 0 {
		return nil
	}
	uid, gid, err := s.Owner.Root()
	if err == nil {
		err = setEffectiveIDs(uid, gid)
	}
	if err != nil {
		return err
	}
	for _, sc := range refused {
		if err := sc.Write(); err != nil {
			return requestError(err)
		}
	}
	return nil
}

// setEffectiveIDs changes the effective user and group of the calling thread. Other threads keep theirs.
func setEffectiveIDs(uid, gid uint32) error {
	const unchanged = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, unchanged, uintptr(gid), unchanged); errno != 0 {
		return os.NewSyscallError("setresgid", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, unchanged, uintptr(uid), unchanged); errno != 0 {
		return os.NewSyscallError("setresuid", errno)
	}
	return nil
}
