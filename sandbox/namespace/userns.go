package namespace

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/criserver/criserver/internal/osthread"
	"github.com/criserver/criserver/internal/userns"
	"golang.org/x/sys/unix"
)

// Owner describes the user namespace that owns the other namespaces of a pod. The owner of a namespace decides what the
// root user of a container may do to the network, the hostname or a message queue, so the user namespace must exist
// before the other namespaces.
type Owner struct {
	userns.Maps
	// PID is a process that is in the namespaces already, such as the pause of the pod. If PID is 0, a process of
	// Holder creates the namespaces.
	PID    int
	Holder userns.Holder // starts the short-lived process; unused if PID is set
	// QueueLabel is the SELinux label for the root of the message queue file system, or "". An OCI runtime may keep
	// the label that the kernel has set.
	QueueLabel string
}

// Flags returns the CLONE_NEW flags of the namespaces, for a pause that creates them when it starts.
func (s Spec) Flags() int {
	_, flags := s.requested()
	return flags
}

// makeInUserNS creates the namespaces by means of a process, because a single thread cannot change its user namespace.
func (s Spec) makeInUserNS() error {
	pinAndConfigure := func(pid int) error {
		if err := s.pinAll(pid); err != nil {
			return err
		}
		// The daemon has all capabilities over the user namespace from outside, so the thread need not join it.
		if err := joinPinned(s.Dir); err != nil {
			return err
		}
		return s.configure()
	}
	if pid := s.Owner.PID; pid != 0 {
		return osthread.Run(func() error { return pinAndConfigure(pid) })
	}
	return s.Owner.Holder.Hold(s.Owner.Maps, uintptr(s.Flags()), pinAndConfigure)
}

// pinAll pins the requested namespaces and the user namespace of a process.
func (s Spec) pinAll(pid int) error {
	names, _ := s.requested()
	for _, name := range append(names, User) {
		if err := pin(userns.Path(pid, name), filepath.Join(s.Dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// chownQueues makes the root user of the user namespace the owner of the root of the message queue file system in the
// IPC namespace of the calling thread. The kernel makes the user that created the namespace the owner, and that user
// has no id in the user namespace: the container could not change the directory, and an OCI runtime could not set its
// SELinux label.
func (s Spec) chownQueues() error {
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
