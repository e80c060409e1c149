package namespace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/osthread"
	"github.com/criserver/criserver/internal/rootpath"
	"golang.org/x/sys/unix"
)

// Write writes sysctls inside the network namespace pinned at path.
func Write(path string, sysctls []Sysctl) error {
	return osthread.Run(func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter %s: %w", path, err)
		}
		for _, sc := range sysctls {
			if err := write(sc); err != nil {
				return err
			}
		}
		return nil
	})
}

// write sets a sysctl of the calling thread's namespaces.
func write(sc Sysctl) error {
	f, err := rootpath.Open("/proc/sys", sc.Path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("set sysctl %s: %w", sc.Path, faultOfRequest(err))
	}
	_, err = f.WriteString(sc.Value)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set sysctl %s to %q: %w", sc.Path, sc.Value, faultOfRequest(err))
	}
	return nil
}

// faultOfRequest makes ErrInvalidArgument of the kernel's answers to a sysctl that
// it does not have and to a value that it does not take.
func faultOfRequest(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ERANGE) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return err
}

// loopbackUp is what the CNI loopback plugin does, without a process.
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
