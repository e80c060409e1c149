package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// stageVariable tells a process of a run which stage it is.
const stageVariable = "CRISERVER_TEST_STAGE"

// Stage returns the name that Again was given for this process, or "".
func Stage() string { return os.Getenv(stageVariable) }

// Again starts this same binary once more as another stage of the run and
// waits for it. attr may be nil.
func Again(stage string, attr *syscall.SysProcAttr, env []string, args ...string) error {
	if attr == nil {
		attr = &syscall.SysProcAttr{}
	}
	// The kernel sends this signal when the starting thread dies, so it must stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	attr.Pdeathsig = syscall.SIGTERM

	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(append(os.Environ(), stageVariable+"="+stage), env...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = attr
	return cmd.Run()
}

// Isolated runs the stage "inside" in namespaces of its own.
func Isolated(args ...string) error {
	return Again("inside", &syscall.SysProcAttr{
		Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC,
	}, nil, args...)
}

// Settle makes the new namespaces look like a machine: a loopback that is up,
// forwarding, shared mounts. Orphans come to this process from now on, so that
// nothing which the run starts can hide from it.
func Settle() error {
	if err := lookLikeAHost(); err != nil {
		return err
	}
	// Shared within the run only: the namespace was made with private mounts.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	go reap()
	return nil
}

// Tmpfs mounts what a reboot would empty.
func Tmpfs(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, runOptions()); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
	}
	return nil
}

// Sweep kills what is left of the run and removes its directory and its cgroups.
func Sweep(dir, cgroupParent string) error {
	for _, pid := range descendants(os.Getpid()) {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	for {
		if _, err := unix.Wait4(-1, nil, 0, nil); errors.Is(err, unix.ECHILD) {
			break
		}
	}
	left := Snapshot{}
	if err := mounts(left); err != nil {
		return err
	}
	detach(left, dir)
	if err := cgroups(left, cgroupParent); err != nil {
		return err
	}
	removeCgroups(left)
	return errors.Join(stopSlice(cgroupParent), os.RemoveAll(dir))
}
