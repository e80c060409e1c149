// Package testns runs the tests of a package in their own network and mount namespaces, so that they
// neither change nor leave interfaces, nftables rules and mounts of the machine. Only tests import it.
package testns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// variable is set in the environment of the process that runs in the namespaces.
const variable = "CRISERVER_TEST_NAMESPACES"

// Run runs the tests and returns the exit code for TestMain. If the user is root, the tests run in a
// child process with a network namespace, in which the loopback interface is up, and a mount
// namespace, in which /run is empty. Other users cannot make these namespaces.
func Run(m *testing.M) int {
	switch {
	case os.Geteuid() != 0:
		return m.Run()
	case os.Getenv(variable) == "":
		return runInside()
	}
	if err := enter(); err != nil {
		fmt.Fprintln(os.Stderr, "set up the namespaces of the test:", err)
		return 1
	}
	return m.Run()
}

// runInside runs the test binary again, in new namespaces.
func runInside() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), variable+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the kernel sends Pdeathsig when the thread exits
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintln(os.Stderr, "run the tests in new namespaces:", err)
		return 1
	}
	return 0
}

// enter prepares the new namespaces.
func enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	// The lock of iptables is on /run.
	if err := unix.Mount("run", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount a tmpfs on /run: %w", err)
	}
	return setLoopbackUp()
}

func setLoopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("set the loopback interface up: %w", err)
	}
	return nil
}
