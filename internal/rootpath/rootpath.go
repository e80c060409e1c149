// Package rootpath opens paths that come from an image or a container below a
// root directory, with the kernel keeping symbolic links and ".." inside it.
package rootpath

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrTooLarge says that a file holds more than its reader's bound.
var ErrTooLarge = errors.New("file is too large")

// Open opens path as a process with root as its root directory would see it:
// absolute links and ".." stay inside. Magic links of /proc are not followed.
func Open(root, path string, flags int, perm os.FileMode) (*os.File, error) {
	dir, err := os.OpenFile(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return OpenAt(dir, path, flags, perm)
}

// OpenAt is Open below a directory that is open already.
func OpenAt(dir *os.File, path string, flags int, perm os.FileMode) (*os.File, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags | unix.O_CLOEXEC),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	if flags&unix.O_CREAT != 0 {
		how.Mode = uint64(perm.Perm())
	}
	for {
		fd, err := unix.Openat2(int(dir.Fd()), path, &how)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN): // a rename raced with the walk
			continue
		case err != nil:
			return nil, &os.PathError{Op: "openat2", Path: path, Err: err}
		}
		return os.NewFile(uintptr(fd), path), nil
	}
}

// ReadFile reads a regular file below root, of limit bytes at most.
func ReadFile(root, path string, limit int64) ([]byte, error) {
	// O_NONBLOCK: a FIFO in the way must not hold the reader.
	f, err := Open(root, path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: not a regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("read %s: more than %d bytes: %w", path, limit, ErrTooLarge)
	}
	return b, nil
}

// MkdirAll makes path and its missing parents below root and returns it opened
// with O_PATH. An existing directory, also one behind links that stay inside
// root, is taken as it is.
func MkdirAll(root, path string, perm os.FileMode) (*os.File, error) {
	return MkdirAllFor(root, path, perm, -1, -1)
}

// MkdirAllFor is MkdirAll for another user: what it makes belongs to uid and
// gid. Of -1 the calling process's stay.
func MkdirAllFor(root, path string, perm os.FileMode, uid, gid int) (*os.File, error) {
	dir, err := os.OpenFile(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if f, err := OpenAt(dir, path, unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
		return f, dir.Close()
	}
	defer dir.Close()
	// Each step is resolved from the root again, as a link may lead elsewhere
	// inside it; only the last component of a step is made, in an open parent.
	done := ""
	for _, name := range strings.Split(path, "/") {
		if name == "" || name == "." {
			continue
		}
		parent, err := OpenAt(dir, "/"+done, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, err
		}
		next := done + "/" + name
		if name != ".." {
			err = mkdirFor(parent, name, perm, uid, gid)
		}
		if cerr := parent.Close(); cerr != nil {
			return nil, cerr
		}
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, &os.PathError{Op: "mkdirat", Path: next, Err: err}
		}
		done = next
	}
	return OpenAt(dir, "/"+done, unix.O_PATH|unix.O_DIRECTORY, 0)
}

// mkdirFor makes a directory in an open one. Were it replaced by a link before
// it is given away, the link would be.
func mkdirFor(parent *os.File, name string, perm os.FileMode, uid, gid int) error {
	if err := unix.Mkdirat(int(parent.Fd()), name, uint32(perm.Perm())); err != nil || uid == -1 && gid == -1 {
		return err
	}
	return unix.Fchownat(int(parent.Fd()), name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}
