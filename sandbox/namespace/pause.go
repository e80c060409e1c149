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

// Pause is the process that holds a PID namespace as its init.
type Pause struct {
	// Path is the static binary, which serves as pause under the name "pause".
	Path string
	// ID is the second word of its command line, by which FindPause knows it.
	ID string
	// Dir holds the pins of the pod's other namespaces, which it joins, and gets
	// that of its PID namespace.
	Dir string
	// User, when set, has the pause be the first process of a new user namespace,
	// and of the namespaces that Flags names, which it owns, instead of one that
	// joins the pod's: see [Owner].
	User  *userns.Maps
	Flags int
	// ProcessLabel and MountLabel are the SELinux labels of the process and its root, or "". Containers of the pod may
	// look at the process as at one of their own.
	ProcessLabel, MountLabel string
}

// pauseUser is nobody's in the host and in images. As any process in a shared
// PID namespace can meet the pause in /proc, there must be nothing to gain:
// no user, no capability, and a root with nothing but its own binary.
const pauseUser = 65535

// attr is what the pause is started with.
func (p Pause) attr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Credential: &syscall.Credential{Uid: pauseUser, Gid: pauseUser}}
	if p.User != nil {
		attr = p.User.SysProcAttr(unix.CLONE_NEWPID | uintptr(p.Flags))
		// The last id that there is, where there are that few.
		last := func(list []userns.Mapping) uint32 { return min(pauseUser, list[0].Size-1) }
		attr.Credential = &syscall.Credential{Uid: last(p.User.UIDs), Gid: last(p.User.GIDs)}
	}
	attr.Setsid = true
	return attr
}

// Start starts the pause and pins its PID namespace. When it fails after the
// process began, it returns the process along with the error.
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
	// The kernel prefers others when memory is short. Lowering it is refused to
	// a daemon without CAP_SYS_RESOURCE, which then goes without.
	_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte("-998"), 0)
	if err := pin("/proc/"+strconv.Itoa(pid)+"/ns/pid", filepath.Join(p.Dir, PID)); err != nil {
		return ref, fmt.Errorf("start pause: %w", err)
	}
	return ref, nil
}

// start runs on a thread of its own, which gives the child its namespaces and
// its root by being in them when it forks.
func (p Pause) start() (int, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	if err := enterAll(p.Dir); err != nil {
		return 0, err
	}
	if p.ProcessLabel != "" { // for the next exec of this thread, and of the child that the thread forks
		if err := os.WriteFile("/proc/thread-self/attr/exec", []byte(p.ProcessLabel), 0); err != nil {
			return 0, fmt.Errorf("set its SELinux label: %w", err)
		}
	}
	if err := p.emptyRoot(); err != nil {
		return 0, fmt.Errorf("make its root: %w", err)
	}
	child, err := os.StartProcess("/pause", []string{"pause", p.ID}, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{},
		Files: []*os.File{null, null, null},
		Sys:   p.attr(),
	})
	if err != nil {
		return 0, err
	}
	pid := child.Pid // Release forgets it
	if p.User != nil {
		err = unix.Unmount("/proc", unix.MNT_DETACH)
	}
	return pid, errors.Join(err, child.Release())
}

// enterAll joins the calling thread to the namespaces pinned in dir.
func enterAll(dir string) error {
	for _, name := range []string{Net, IPC, UTS} {
		f, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		err = errors.Join(unix.Setns(int(f.Fd()), 0), f.Close())
		if err != nil {
			return fmt.Errorf("enter %s: %w", f.Name(), err)
		}
	}
	return nil
}

// emptyRoot gives the calling thread a mount namespace whose root holds the binary and nothing else, all of it
// read-only: with /proc/1/exe a container must not get at the file of the host. The root covers Dir in that
// mount namespace only. A pause in a new user namespace also has /proc, for the maps; the caller unmounts /proc
// after the start.
func (p Pause) emptyRoot() error {
	binary, at, proc := p.Path, p.Dir, p.User != nil
	const quiet = unix.MS_NOSUID | unix.MS_NODEV
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
	if err := unix.Mount("pause", at, "tmpfs", quiet, options); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	target := filepath.Join(at, "pause")
	// A file that was never open: a process that another thread forks would
	// hold it open for writing until it executes, and keep it from turning
	// read-only.
	if err := unix.Mknod(target, unix.S_IFREG|0o555, 0); err != nil {
		return fmt.Errorf("make %s: %w", target, err)
	}
	if err := unix.Mount(binary, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", binary, err)
	}
	if proc {
		if err := bindProc(filepath.Join(at, "proc")); err != nil {
			return err
		}
	}
	for _, path := range []string{target, at} {
		if err := unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|quiet, ""); err != nil {
			return fmt.Errorf("make %s read-only: %w", path, err)
		}
	}
	if err := unix.Chdir(at); err != nil {
		return err
	}
	// The old root ends up mounted over the new one, from where it is detached.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detach the old root: %w", err)
	}
	return unix.Chdir("/")
}

func bindProc(target string) error {
	if err := os.Mkdir(target, 0o555); err != nil {
		return err
	}
	if err := unix.Mount("/proc", target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind /proc: %w", err)
	}
	return nil
}

// FindPause looks for the pause of a pod whose start was not recorded.
func FindPause(id string) (proc.Ref, bool) { return proc.Find("pause", id) }

// pollMillis bounds how long a wait takes to notice that its context has ended.
const pollMillis = 50

// EndPause kills a pause, and with it all of its PID namespace, and waits for
// its end. One that has ended is no error.
func EndPause(ctx context.Context, ref proc.Ref) error {
	f, err := ref.Open()
	if errors.Is(err, proc.ErrGone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("end pause: %w", err)
	}
	defer f.Close()
	err = unix.PidfdSendSignal(int(f.Fd()), unix.SIGKILL, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end pause: %w", err)
	}
	for {
		fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, pollMillis)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("end pause: poll: %w", err)
		}
		if n > 0 {
			return Reap(f)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("end pause %d: it does not end: %w", ref.PID, context.Cause(ctx))
		}
	}
}

// Reap takes leave of an ended pause that this daemon started. One of an
// earlier daemon is init's to reap. It goes by the pidfd, as the pid may be
// another child's by now.
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
