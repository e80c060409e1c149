package harness

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// stageVariable is the environment variable with the stage of a process.
const stageVariable = "CRISERVER_TEST_STAGE"

// Stage returns the stage that Again started this process for, or "".
func Stage() string { return os.Getenv(stageVariable) }

// Again runs this test binary as another stage of the run and waits for its
// exit. attr may be nil.
func Again(stage string, attr *syscall.SysProcAttr, env []string, args ...string) error {
	return again(stage, attr, env, os.Stdout, os.Stderr, args...)
}

func again(stage string, attr *syscall.SysProcAttr, env []string, stdout, stderr io.Writer, args ...string) error {
	if attr == nil {
		attr = &syscall.SysProcAttr{}
	}
	// The kernel sends Pdeathsig when the thread that started the process ends, so the thread must remain.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if attr.Pdeathsig == 0 {
		attr.Pdeathsig = syscall.SIGTERM
	}

	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(append(os.Environ(), stageVariable+"="+stage), env...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = attr

	stages.Lock()
	err := cmd.Start()
	if err == nil {
		stages.pids[cmd.Process.Pid] = true
	}
	stages.Unlock()
	if err != nil {
		return err
	}
	defer func() {
		stages.Lock()
		defer stages.Unlock()
		delete(stages.pids, cmd.Process.Pid)
	}()
	return cmd.Wait()
}

// Isolated runs the stage "inside" in new mount, network and IPC namespaces.
func Isolated(args ...string) error { return isolated(os.Stdout, os.Stderr, args...) }

func isolated(stdout, stderr io.Writer, args ...string) error {
	// A stage that is killed or exceeds its time limit does not clean up. Its daemons and monitors become children of
	// this process.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the subreaper of the run: %w", err)
	}
	err := again("inside", &syscall.SysProcAttr{
		Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC,
	}, nil, stdout, stderr, args...)
	if err != nil {
		err = errors.Join(err, killOrphans())
	}
	return err
}

// stages contains the processes that again has started.
var stages = struct {
	sync.Mutex
	pids map[int]bool
}{pids: make(map[int]bool)}

// killOrphans kills the processes that a stage has left, with the processes below them.
func killOrphans() error {
	stages.Lock()
	defer stages.Unlock()
	var errs []error
	for _, pid := range children(os.Getpid()) {
		if stages.pids[pid] {
			continue
		}
		for _, p := range append(descendants(pid), pid) {
			if err := unix.Kill(p, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("kill process %d, which a test has left: %w", p, err))
			}
		}
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}
	return errors.Join(errs...)
}

// IsolatedProcesses does the same with a PID namespace, whose first process is the stage. When the stage or this
// process ends in any way, the kernel kills all processes of the run, and their mounts and interfaces disappear. The
// stage must call MountProc first.
func IsolatedProcesses(env []string, args ...string) error {
	return Again("inside", &syscall.SysProcAttr{
		Cloneflags:   syscall.CLONE_NEWPID,
		Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC,
		Pdeathsig:    syscall.SIGKILL,
	}, env, args...)
}

// MountProc mounts the proc file system of a new PID namespace on /proc.
func MountProc() error {
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount proc on /proc: %w", err)
	}
	return nil
}

// SetUpHost makes the new namespaces look like a machine: the loopback interface
// is up, forwarding is enabled, mounts are shared. It makes this process the
// subreaper of all processes that the run starts, so that none of them escapes
// the search for leaks.
func SetUpHost() error {
	if err := setUpHostNetwork(); err != nil {
		return err
	}
	// The mounts are shared within the run only, because the namespace was created with private mounts.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	go reapOrphans()
	return nil
}

// Tmpfs mounts a tmpfs, which a reboot empties.
func Tmpfs(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, runOptions()); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
	}
	return nil
}
