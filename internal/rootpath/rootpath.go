// Package rootpath opens untrusted paths of an image or container below a root
// directory. The kernel resolves the paths, so that symbolic links and ".." cannot leave
// the root directory.
package rootpath

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrTooLarge is the error of ReadFile for a file that exceeds the limit.
var ErrTooLarge = errors.New("file is too large")

// maxName is the longest name in the usual file systems (NAME_MAX), in bytes.
const maxName = 255

// LengthRule describes the rule of TooLong for error messages.
const LengthRule = "must have less than 4096 bytes, and at most 255 between two slashes"

// TooLong reports whether the kernel refuses a path because of its length
// (ENAMETOOLONG).
func TooLong(path string) bool {
	if len(path) >= unix.PathMax {
		return true
	}
	for name := range strings.SplitSeq(path, "/") {
		if len(name) > maxName {
			return true
		}
	}
	return false
}

// Open opens path in the way of a process whose root directory is root: absolute links
// and ".." stay below root. Open does not follow the magic links of /proc.
func Open(root, path string, flags int, perm os.FileMode) (*os.File, error) {
	dir, err := os.OpenFile(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return OpenAt(dir, path, flags, perm)
}

// OpenAt is Open with an open file as the root directory.
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
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN): // EAGAIN: a directory was renamed during the resolution
			continue
		case err != nil:
			return nil, &os.PathError{Op: "openat2", Path: path, Err: err}
		}
		return os.NewFile(uintptr(fd), path), nil
	}
}

// ReadFile reads a regular file of at most limit bytes below root.
func ReadFile(root, path string, limit int64) ([]byte, error) {
	// Without O_NONBLOCK, the open of a FIFO would block.
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

// MkdirAll creates the directory path and its missing parents below root, and opens the
// directory with O_PATH. Directories that exist, also behind symbolic links below root,
// do not change.
func MkdirAll(root, path string, perm os.FileMode) (*os.File, error) {
	return MkdirAllFor(root, path, perm, -1, -1)
}

// MkdirAllFor is MkdirAll with uid and gid as the owner of the new directories. -1 is
// the owner or group of the calling process.
func MkdirAllFor(root, path string, perm os.FileMode, uid, gid int) (*os.File, error) {
	dir, err := os.OpenFile(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if f, err := OpenAt(dir, path, unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
		return f, dir.Close()
	}
	defer dir.Close()
	// Each step resolves the path from the root again, because a link may lead to
	// another directory below root. Each step creates only the last component, in the
	// open parent directory.
	created := ""
	for _, name := range strings.Split(path, "/") {
		if name == "" || name == "." {
			continue
		}
		parent, err := OpenAt(dir, "/"+created, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, err
		}
		next := created + "/" + name
		if name != ".." {
			err = mkdirFor(parent, name, perm, uid, gid)
		}
		if closeErr := parent.Close(); closeErr != nil {
			return nil, closeErr
		}
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, &os.PathError{Op: "mkdirat", Path: next, Err: err}
		}
		created = next
	}
	return OpenAt(dir, "/"+created, unix.O_PATH|unix.O_DIRECTORY, 0)
}

// mkdirFor creates a directory in an open parent directory and changes its owner. If
// another process replaces the directory by a symbolic link between the two steps, only
// the owner of the link changes.
func mkdirFor(parent *os.File, name string, perm os.FileMode, uid, gid int) error {
	if err := unix.Mkdirat(int(parent.Fd()), name, uint32(perm.Perm())); err != nil || uid == -1 && gid == -1 {
		return err
	}
	return unix.Fchownat(int(parent.Fd()), name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}
