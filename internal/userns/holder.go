package userns

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/internal/osthread"
)

// Holder is the program that runs as the first process of a user namespace. It is
// necessary because a process with several threads, such as the daemon, cannot create a
// user namespace for one of its threads.
type Holder struct {
	// Path is a static binary. With Args, of which the first is the name of the program,
	// it runs until it is killed.
	Path string
	Args []string
}

// Hold creates a user namespace and new namespaces of the other kinds in flags, calls fn
// with the pid of a process in the namespaces, and kills the process. A namespace
// continues to exist if fn has opened or pinned it below /proc/PID/ns.
//
// fn runs on its own thread and may change the thread permanently. If the calling process
// is killed, the kernel kills the holder.
func (h Holder) Hold(m Maps, flags uintptr, fn func(pid int) error) error {
	return osthread.Run(func() error {
		p, err := h.start(m, flags)
		if err != nil {
			return fmt.Errorf("create user namespace: %w", err)
		}
		err = fn(p.Pid)
		_ = p.Kill() // fails only if the process has exited, which Wait notices
		if _, waitErr := p.Wait(); waitErr != nil {
			err = errors.Join(err, fmt.Errorf("wait for the holder of a user namespace: %w", waitErr))
		}
		return err
	})
}

// start starts the holder in new namespaces.
func (h Holder) start(m Maps, flags uintptr) (*os.Process, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	binary, err := os.Open(h.Path)
	if err != nil {
		return nil, err
	}
	defer binary.Close()
	attr := m.SysProcAttr(flags)
	attr.Pdeathsig = unix.SIGKILL
	// The binary is executed by its descriptor, because the root of the user namespace may
	// not have access to the directories of the path.
	return os.StartProcess("/proc/self/fd/3", h.Args, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{null, null, null, binary}, Sys: attr,
	})
}

// Open creates a user namespace and opens it. The namespace exists until the file is
// closed.
func (h Holder) Open(m Maps) (ns *os.File, err error) {
	err = h.Hold(m, 0, func(pid int) (err error) {
		ns, err = os.Open(Path(pid, "user"))
		return err
	})
	if err != nil && ns != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return ns, err
}

// Path returns the path of a namespace of a process. kind is the name of the namespace in
// /proc/PID/ns, for example "user".
func Path(pid int, kind string) string { return "/proc/" + strconv.Itoa(pid) + "/ns/" + kind }

// MapMount clones the mount at path, with all mounts below if recursive is set, and maps
// the ids of the files by the user namespace ns. The clone is a detached mount, which the
// kernel unmounts when the file is closed.
func MapMount(path string, ns *os.File, recursive bool) (*os.File, error) {
	openFlags, attrFlags := uint(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC), uint(unix.AT_EMPTY_PATH)
	if recursive {
		openFlags, attrFlags = openFlags|unix.AT_RECURSIVE, attrFlags|unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, openFlags)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: path, Err: err}
	}
	tree := os.NewFile(uintptr(fd), path)
	err = unix.MountSetattr(fd, "", attrFlags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())})
	if err != nil {
		return nil, errors.Join(&os.PathError{Op: "mount_setattr", Path: path, Err: err}, tree.Close())
	}
	return tree, nil
}
