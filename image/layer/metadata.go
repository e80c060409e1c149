package layer

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// isOpaque reports whether a directory has overlay's opaque attribute.
func isOpaque(dir string) (bool, error) {
	var value [1]byte
	n, err := unix.Lgetxattr(dir, opaqueXattr, value[:])
	if errors.Is(err, unix.ENODATA) {
		return false, nil
	}
	return n == 1 && value[0] == 'y', err
}

// hasDefaultMetadata reports whether a directory has the metadata that implied directories have.
func hasDefaultMetadata(dir string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return false, err
	}
	attrs, err := xattrs(dir)
	return st.Mode == unix.S_IFDIR|0o755 && st.Uid == 0 && st.Gid == 0 && len(attrs) == 0, err
}

// CopyMetadata copies the owner, mode, times and extended attributes of the directory src to dst, except
// for the attributes that overlay uses itself.
func CopyMetadata(dst, src string) error {
	var st unix.Stat_t
	if err := unix.Lstat(src, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: src, Err: err}
	}
	attrs, err := xattrs(src)
	if err != nil {
		return err
	}
	if err := os.Lchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	for name, value := range attrs {
		if err := unix.Lsetxattr(dst, name, value, 0); err != nil {
			return &os.PathError{Op: "setxattr", Path: dst, Err: err}
		}
	}
	if err := unix.Chmod(dst, st.Mode&0o7777); err != nil {
		return &os.PathError{Op: "chmod", Path: dst, Err: err}
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	return unix.UtimesNanoAt(unix.AT_FDCWD, dst, times, unix.AT_SYMLINK_NOFOLLOW)
}

// xattrs returns the extended attributes of a directory that can come from the tar of a layer.
func xattrs(dir string) (map[string][]byte, error) {
	attrs, err := allXattrs(dir)
	for name := range attrs {
		if strings.HasPrefix(name, "trusted.") || strings.HasPrefix(name, "security.") {
			delete(attrs, name)
		}
	}
	return attrs, err
}

// allXattrs returns all extended attributes of a file. It does not follow a symbolic link.
func allXattrs(file string) (map[string][]byte, error) {
	n, err := unix.Llistxattr(file, nil)
	names := make([]byte, max(n, 0))
	if err == nil && n > 0 {
		n, err = unix.Llistxattr(file, names)
	}
	if err != nil {
		return nil, &os.PathError{Op: "listxattr", Path: file, Err: err}
	}
	attrs := make(map[string][]byte)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10) // the maximum size of an attribute
		n, err := unix.Lgetxattr(file, name, value)
		if err != nil {
			return nil, &os.PathError{Op: "getxattr", Path: file, Err: err}
		}
		attrs[name] = value[:n]
	}
	return attrs, nil
}
