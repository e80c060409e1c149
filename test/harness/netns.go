package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// NewNetNS makes a network namespace with its loopback up, forwarding as a
// router does, and pins it at path by a bind mount.
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
		return lookLikeAHost()
	})
}

// RemoveNetNS gives a namespace back. It ends when nobody is in it any more.
func RemoveNetNS(path string) error {
	return errors.Join(unix.Unmount(path, unix.MNT_DETACH), os.Remove(path))
}

// In runs fn in the network namespace pinned at path, or where it is called when
// path is empty. Sockets and processes that fn makes stay there.
func In(path string, fn func() error) error {
	if path == "" {
		return fn()
	}
	return onThread(func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
		// While it is open the mount is busy, and fn may last.
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("enter %s: %w", path, err)
		}
		return fn()
	})
}

// onThread runs fn on a thread that is thrown away afterwards.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go lockedThread(fn, done)
	return <-done
}

// lockedThread never unlocks its thread, which then ends with the goroutine; all
// but the main thread, which Go would keep, and the namespace with it. So where
// this is the main thread, it is occupied while another one does it.
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

// lookLikeAHost sets up the calling thread's network namespace.
func lookLikeAHost() error {
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
