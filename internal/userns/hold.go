package userns

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/internal/osthread"
)

// Holder is the process that a user namespace begins with, as none of several
// threads may change its own.
type Holder struct {
	// Path is a static binary that runs until it is killed when it is run with
	// Args, the first of which is its name.
	Path string
	Args []string
}

// Hold makes a user namespace, and in it new namespaces of the other kinds that
// flags name, calls fn with the pid of a process in them, and ends that process.
// What fn has opened or pinned below /proc/PID/ns lives on. fn runs on a thread
// that ends with it, which it may change for good. Should the calling process be
// killed, the holder is too.
func (h Holder) Hold(m Maps, flags uintptr, fn func(pid int) error) error {
	return osthread.Run(func() error {
		p, err := h.start(m, flags)
		if err != nil {
			return fmt.Errorf("make user namespace: %w", err)
		}
		err = fn(p.Pid)
		_ = p.Kill() // it can have ended by itself only, which Wait tells as well
		if _, werr := p.Wait(); werr != nil {
			err = errors.Join(err, fmt.Errorf("end the holder of a user namespace: %w", werr))
		}
		return err
	})
}

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
	// As a descriptor: the root of a user namespace may not be let through the
	// directories that lead to the binary.
	return os.StartProcess("/proc/self/fd/3", h.Args, &os.ProcAttr{
		Dir: "/", Env: []string{}, Files: []*os.File{null, null, null, binary}, Sys: attr,
	})
}

// Open makes a user namespace that lives for as long as the file is open.
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

// Path names a namespace of a process, of the kind that /proc/PID/ns calls kind.
func Path(pid int, kind string) string { return "/proc/" + strconv.Itoa(pid) + "/ns/" + kind }

// MapMount clones the tree of mounts at path, with all below it when recursive,
// and maps the ids of its files by a user namespace. The clone is attached
// nowhere: it ends with the descriptor.
func MapMount(path string, ns *os.File, recursive bool) (*os.File, error) {
	open, set := uint(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC), uint(unix.AT_EMPTY_PATH)
	if recursive {
		open, set = open|unix.AT_RECURSIVE, set|unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, open)
	if err != nil {
		return nil, &os.PathError{Op: "open_tree", Path: path, Err: err}
	}
	tree := os.NewFile(uintptr(fd), path)
	err = unix.MountSetattr(fd, "", set, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())})
	if err != nil {
		return nil, errors.Join(&os.PathError{Op: "mount_setattr", Path: path, Err: err}, tree.Close())
	}
	return tree, nil
}
