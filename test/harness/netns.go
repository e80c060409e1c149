package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// NewNetNS creates a network namespace in which the loopback interface is up and
// forwarding is enabled, and pins it at path with a bind mount.
func NewNetNS(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("pin %s: %w", path, err)
		}
		return setUpHostNetwork()
	})
}

// RemoveNetNS removes the bind mount of a network namespace. The kernel removes the
// namespace when its last process and socket have ended.
func RemoveNetNS(path string) error {
	return errors.Join(unix.Unmount(path, unix.MNT_DETACH), os.Remove(path))
}

// In runs fn in the network namespace that is pinned at path, or in the caller's if
// path is empty. Sockets and processes that fn creates remain in that namespace.
func In(path string, fn func() error) error {
	if path == "" {
		return fn()
	}
	return InNamespace(path, unix.CLONE_NEWNET, fn)
}

// InNamespace runs fn on a thread in the namespace of the kind CLONE_NEW… that is pinned at path.
func InNamespace(path string, kind int, fn func() error) error {
	return onThread(func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = unix.Setns(int(f.Fd()), kind)
		// An open file would keep the mount busy as long as fn runs.
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("enter %s: %w", path, err)
		}
		return fn()
	})
}

// onThread runs fn on a thread that ends afterwards.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go lockedThread(fn, done)
	return <-done
}

// lockedThread runs fn and never unlocks its thread, so the thread ends with the
// goroutine. The Go runtime never ends the main thread, which would keep the
// namespace. So if the goroutine is on the main thread, it blocks that thread while
// another goroutine runs fn.
func lockedThread(fn func() error, done chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		done <- fn()
		return
	}
	inner := make(chan error, 1)
	go lockedThread(fn, inner)
	done <- <-inner
	runtime.UnlockOSThread()
}

// setUpHostNetwork sets up the network namespace of the calling thread: the
// loopback interface is up and forwarding is enabled.
func setUpHostNetwork() error {
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link set lo up: %w: %s", err, out)
	}
	for _, file := range []string{"/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"} {
		if err := os.WriteFile(file, []byte("1"), 0o644); err != nil {
			return err
		}
	}
	return nil
}
