package namespace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/criserver/criserver/internal/osthread"
	"github.com/criserver/criserver/internal/userns"
	"golang.org/x/sys/unix"
)

// Owner is a user namespace of a pod's own. What the root of a container may do
// to a network, a hostname or a queue goes by who owns the namespace of it, so
// the pod's user namespace has to be there before its others.
type Owner struct {
	userns.Maps
	// PID is a process that is in the namespaces already, as the pod's pause is.
	// With 0 a short-lived one makes them.
	PID    int
	Holder userns.Holder // of that one
	// QueueLabel is the SELinux label for the root of the message queues, or "". An OCI runtime may leave the label
	// that the kernel gave.
	QueueLabel string
}

// Flags are what a pause that is to be that process needs to make them with.
func (s Spec) Flags() int {
	_, flags := s.kinds()
	return flags
}

// makeOwned makes the namespaces with a process, as no thread can change its
// user namespace alone.
func (s Spec) makeOwned() error {
	adopt := func(pid int) error {
		if err := s.pinAll(pid); err != nil {
			return err
		}
		return s.enterAndFurnish()
	}
	if pid := s.Owner.PID; pid != 0 {
		return osthread.Run(func() error { return adopt(pid) })
	}
	return s.Owner.Holder.Hold(s.Owner.Maps, uintptr(s.Flags()), adopt)
}

func (s Spec) pinAll(pid int) error {
	names, _ := s.kinds()
	for _, name := range append(names, User) {
		if err := pin(userns.Path(pid, name), filepath.Join(s.Dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// furnishQueues gives the root of the message queues in the calling thread's IPC namespace to the root of the user
// namespace. The kernel gives it to the user that made the namespace, who is nobody in the user namespace: the
// container could not change the directory, and an OCI runtime could not set its SELinux label.
func (s Spec) furnishQueues() error {
	uid, gid, err := s.Owner.Root()
	if err != nil {
		return err
	}
	fs, err := unix.Fsopen("mqueue", unix.FSOPEN_CLOEXEC)
	if errors.Is(err, unix.ENODEV) {
		return nil // this kernel has no message queues
	}
	if err != nil {
		return fmt.Errorf("fsopen mqueue: %w", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return fmt.Errorf("create mqueue: %w", err)
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("fsmount mqueue: %w", err)
	}
	defer unix.Close(root)
	if err := unix.Fchownat(root, "", int(uid), int(gid), unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("chown the root of mqueue: %w", err)
	}
	if s.Owner.QueueLabel == "" {
		return nil
	}
	err = unix.Setxattr("/proc/self/fd/"+strconv.Itoa(root), "security.selinux", []byte(s.Owner.QueueLabel), 0)
	if err != nil && !errors.Is(err, unix.ENOTSUP) {
		return fmt.Errorf("label the root of mqueue: %w", err)
	}
	return nil
}

// enterAndFurnish joins all but the user namespace, over which the daemon has
// every right from outside.
func (s Spec) enterAndFurnish() error {
	if err := enterAll(s.Dir); err != nil {
		return err
	}
	return s.furnish()
}

// writeSysctls sets the pod's parameters. Those of an IPC namespace the kernel
// lets none but the root of its user namespace write, whatever the capabilities:
// they come last, as the thread becomes that user for good.
func (s Spec) writeSysctls() error {
	var refused []Sysctl
	for _, sc := range s.Sysctls {
		err := write(sc)
		switch {
		case err == nil:
		case s.Owner != nil && errors.Is(err, fs.ErrPermission):
			refused = append(refused, sc)
		case s.Owner != nil && errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(sc.Path, "net/"):
			return fmt.Errorf("the kernel has it for no network of a user namespace: %w", err)
		default:
			return err
		}
	}
	if len(refused) == 0 {
		return nil
	}
	uid, gid, err := s.Owner.Root()
	if err == nil {
		err = become(uid, gid)
	}
	if err != nil {
		return err
	}
	for _, sc := range refused {
		if err := write(sc); err != nil {
			return err
		}
	}
	return nil
}

// become changes the effective ids of the calling thread, and of no other.
func become(uid, gid uint32) error {
	const same = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, same, uintptr(gid), same); errno != 0 {
		return os.NewSyscallError("setresgid", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, uintptr(uid), same); errno != 0 {
		return os.NewSyscallError("setresuid", errno)
	}
	return nil
}
