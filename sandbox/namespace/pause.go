package namespace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/criserver/criserver/internal/mountopt"
	"github.com/criserver/criserver/internal/osthread"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/internal/userns"
	"golang.org/x/sys/unix"
)

// Pause describes the process that is the init process of a PID namespace and keeps the namespace in existence.
type Pause struct {
	// Path is the static binary, which acts as the pause if its name is "pause".
	Path string
	// ID is the second word of the command line of the process. FindPause searches for it.
	ID string
	// Dir is the directory of the pins of the pod. The pause joins the pinned namespaces. Start adds the pin of
	// the PID namespace.
	Dir string
	// User makes the pause the first process of a new user namespace, and of new namespaces of the kinds in Flags,
	// which the user namespace owns. If User is nil, the pause joins the namespaces of the pod: see [Owner].
	User  *userns.Maps
	Flags int
	// ProcessLabel and MountLabel are the SELinux labels of the process and its root, or "". Containers of the pod
	// may look at the process as at their own processes.
	ProcessLabel, MountLabel string
}

// pauseUser is the user and group of the pause, which neither the host nor images use. Every process in a shared PID
// namespace sees the pause in /proc, so the pause must have nothing that is of use to an attacker: it has no user with
// other processes, no capability, and a root with nothing but its own binary.
const pauseUser = 65535

// sysProcAttr returns the namespaces and credentials of the new process.
func (p Pause) sysProcAttr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Credential: &syscall.Credential{Uid: pauseUser, Gid: pauseUser}}
	if p.User != nil {
		attr = p.User.SysProcAttr(unix.CLONE_NEWPID | uintptr(p.Flags))
		// If the mapping is smaller, the pause gets the last id of the mapping.
		last := func(list []userns.Mapping) uint32 { return min(pauseUser, list[0].Size-1) }
		attr.Credential = &syscall.Credential{Uid: last(p.User.UIDs), Gid: last(p.User.GIDs)}
	}
	attr.Setsid = true
	return attr
}

// Start starts the pause and pins its PID namespace. If Start fails after the start of the process, it returns the
// process and the error.
func (p Pause) Start() (proc.Ref, error) {
	var pid int
	err := osthread.Run(func() (err error) {
		pid, err = p.start()
		return err
	})
	if err != nil {
		return proc.Ref{}, fmt.Errorf("start pause: %w", err)
	}
	ref, err := proc.Identify(pid)
	if err != nil {
		return proc.Ref{}, fmt.Errorf("start pause: %w", err)
	}
	// The kernel kills other processes first when memory is short. A daemon without CAP_SYS_RESOURCE may not lower the
	// value; the pause then keeps the value of the daemon.
	_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte("-998"), 0)
	if err := pin("/proc/"+strconv.Itoa(pid)+"/ns/pid", filepath.Join(p.Dir, PID)); err != nil {
		return ref, fmt.Errorf("start pause: %w", err)
	}
	return ref, nil
}

// start starts the process from the calling thread, which has joined the namespaces and changed its
// root before, because a child inherits both from the thread that forks.
func (p Pause) start() (int, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	if err := joinPinned(p.Dir); err != nil {
		return 0, err
	}
	if p.ProcessLabel != "" { // for the next exec of this thread, and of the child that the thread forks
		if err := os.WriteFile("/proc/thread-self/attr/exec", []byte(p.ProcessLabel), 0); err != nil {
			return 0, fmt.Errorf("set the SELinux label: %w", err)
		}
	}
	if err := p.emptyRoot(); err != nil {
		return 0, fmt.Errorf("create the root: %w", err)
	}
	child, err := os.StartProcess("/pause", []string{"pause", p.ID}, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{},
		Files: []*os.File{null, null, null},
		Sys:   p.sysProcAttr(),
	})
	if err != nil {
		return 0, err
	}
	pid := child.Pid // Release resets it
	if p.User != nil {
		err = unix.Unmount("/proc", unix.MNT_DETACH)
	}
	return pid, errors.Join(err, child.Release())
}

// joinPinned moves the calling thread into the namespaces that are pinned in dir, except the user namespace.
func joinPinned(dir string) error {
	for _, name := range []string{Net, IPC, UTS} {
		f, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := errors.Join(enter(f, 0), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// emptyRoot gives the calling thread a mount namespace with a read-only root that contains only the binary. Otherwise a
// container could reach the file of the host by /proc/1/exe. The root is mounted on Dir, in that mount namespace only.
// The root of a pause in a new user namespace also contains /proc, for the id maps; the caller unmounts /proc after the
// start.
func (p Pause) emptyRoot() error {
	const restricted = unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	options := "mode=0755,size=64k,nr_inodes=4"
	if p.MountLabel != "" {
		options += "," + mountopt.Context(p.MountLabel)
	}
	if err := unix.Mount("pause", p.Dir, "tmpfs", restricted, options); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	target := filepath.Join(p.Dir, "pause")
	// Mknod creates the file without opening it. A child of another thread would inherit an open file and hold it
	// open for writing until the child executes a program, and the mount could not become read-only.
	if err := unix.Mknod(target, unix.S_IFREG|0o555, 0); err != nil {
		return fmt.Errorf("create %s: %w", target, err)
	}
	if err := unix.Mount(p.Path, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", p.Path, err)
	}
	if p.User != nil {
		if err := bindProc(filepath.Join(p.Dir, "proc")); err != nil {
			return err
		}
	}
	for _, path := range []string{target, p.Dir} {
		if err := unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|restricted, ""); err != nil {
			return fmt.Errorf("make %s read-only: %w", path, err)
		}
	}
	if err := unix.Chdir(p.Dir); err != nil {
		return err
	}
	// pivot_root mounts the old root over the new root; Unmount detaches it.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the old root: %w", err)
	}
	return unix.Chdir("/")
}

// bindProc mounts /proc on target.
func bindProc(target string) error {
	if err := os.Mkdir(target, 0o555); err != nil {
		return err
	}
	if err := unix.Mount("/proc", target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind /proc: %w", err)
	}
	return nil
}

// FindPause searches for the pause of a pod if the record of the pod does not have the process.
func FindPause(id string) (proc.Ref, bool) { return proc.Find("pause", id) }

// pollMillis is the longest time in milliseconds until EndPause notices the end of its context.
const pollMillis = 50

// EndPause kills a pause and waits until it has ended. The kernel kills all other processes of the
// PID namespace, too. A pause that has already ended is no error.
func EndPause(ctx context.Context, ref proc.Ref) error {
	f, err := ref.Open()
	if errors.Is(err, proc.ErrGone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill pause: %w", err)
	}
	defer f.Close()
	err = unix.PidfdSendSignal(int(f.Fd()), unix.SIGKILL, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill pause: %w", err)
	}
	for {
		fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, pollMillis)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("kill pause: poll: %w", err)
		}
		if n > 0 {
			return Reap(f)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("kill pause %d: wait for the end of the process: %w", ref.PID, context.Cause(ctx))
		}
	}
}

// Reap waits for an ended pause that this daemon has started. Process 1 reaps the pauses of earlier daemons. Reap uses
// the pidfd, because the pid may belong to another child now.
func Reap(pidfd *os.File) error {
	for {
		err := unix.Waitid(unix.P_PIDFD, int(pidfd.Fd()), nil, unix.WEXITED|unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err == nil, errors.Is(err, unix.ECHILD):
			return nil
		default:
			return fmt.Errorf("reap pause: %w", err)
		}
	}
}
