// Package filetar writes files of a directory tree to a tar: the changed files of a root file system, and the files
// of /dev/shm. The files belong to a container, so no symbolic link is followed, and no file of another file system
// is read.
package filetar

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Writer writes files of one tree to a tar. The names of the entries are relative to the top of the tree.
type Writer struct {
	ctx   context.Context //nolint:containedctx // lives as long as the call that makes the tar
	top   *os.File
	tar   *tar.Writer
	links map[inode]string // names of files with several links
	// seen are the names of the entries.
	seen map[string]bool
}

type inode struct{ dev, ino uint64 }

// New returns a Writer of the files below the directory top to w. The writes fail when ctx ends.
func New(ctx context.Context, top *os.File, w io.Writer) *Writer {
	return &Writer{ctx: ctx, top: top, tar: tar.NewWriter(w), links: make(map[inode]string), seen: make(map[string]bool)}
}

// Len returns the number of entries.
func (w *Writer) Len() int { return len(w.seen) }

// Close ends the tar.
func (w *Writer) Close() error { return w.tar.Close() }

// Add adds a file or an empty directory. name is relative to the top; "" is the top itself. Add does nothing for a
// name that has been added, and for a socket: CRIU makes sockets when it restores the process that listens.
func (w *Writer) Add(name string) error {
	f, err := w.open(name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer f.Close()
	if err := w.add(f, name); err != nil {
		return fmt.Errorf("write %q to tar: %w", name, err)
	}
	return nil
}

// AddTree adds a file, and if it is a directory, everything below it.
func (w *Writer) AddTree(name string) error {
	if err := w.Add(name); err != nil {
		return err
	}
	f, err := w.open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	names, err := f.Readdirnames(-1)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	slices.Sort(names)
	for _, n := range names {
		if err := w.AddTree(path.Join(name, n)); err != nil {
			return err
		}
	}
	return nil
}

// add adds the file behind f, which was opened with O_PATH.
func (w *Writer) add(f *os.File, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	h := header(name, &st)
	if h == nil || w.seen[h.Name] {
		return nil
	}
	w.seen[h.Name] = true
	if h.Typeflag != tar.TypeDir && st.Nlink > 1 {
		key := inode{st.Dev, st.Ino}
		if first, ok := w.links[key]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return w.tar.WriteHeader(h)
		}
		w.links[key] = h.Name
	}
	if h.Typeflag == tar.TypeSymlink {
		target, err := readlink(f)
		if err != nil {
			return err
		}
		h.Linkname = target
	}
	if err := addXattrs(h, f); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return w.tar.WriteHeader(h)
	}
	return w.addContent(h, name, &st)
}

// addContent adds a regular file. The file must not change meanwhile.
func (w *Writer) addContent(h *tar.Header, name string, want *unix.Stat_t) error {
	f, err := w.open(name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if st.Dev != want.Dev || st.Ino != want.Ino {
		return errors.New("the file was replaced meanwhile")
	}
	if err := w.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(w.tar, io.LimitReader(reader{w.ctx, f}, h.Size))
	return err
}

type reader struct {
	ctx context.Context //nolint:containedctx // lives as long as one copy
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

// open opens a file below the top. The kernel refuses symbolic links and other file systems on the path.
func (w *Writer) open(name string, flags uint64) (*os.File, error) {
	if w.ctx.Err() != nil {
		return nil, context.Cause(w.ctx)
	}
	if name == "" {
		name = "."
	}
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	}
	if flags&unix.O_PATH != 0 {
		// With RESOLVE_NO_SYMLINKS, O_PATH|O_NOFOLLOW opens a symbolic link itself.
		how.Flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	}
	for {
		fd, err := unix.Openat2(int(w.top.Fd()), name, &how)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}

// header returns the header of a file, or nil for a socket.
func header(name string, st *unix.Stat_t) *tar.Header {
	h := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid), Format: tar.FormatPAX,
		ModTime: time.Unix(st.Mtim.Unix()),
	}
	if name == "" {
		h.Name = "."
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	default:
		return nil
	}
	return h
}

// readlink returns the target of a symbolic link.
func readlink(f *os.File) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f.Fd()), "", buf)
	if err != nil {
		return "", os.NewSyscallError("readlinkat", err)
	}
	return string(buf[:n]), nil
}

// hiddenXattrs are the prefixes of attributes that belong to the node: those of overlay, and SELinux labels, which a
// restored container gets from its pod.
var hiddenXattrs = []string{"trusted.overlay.", "user.overlay.", "security.selinux"}

// addXattrs adds the extended attributes of the file behind f, which was opened with O_PATH.
func addXattrs(h *tar.Header, f *os.File) error {
	link := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	list, err := readXattr(func(b []byte) (int, error) { return unix.Listxattr(link, b) })
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("listxattr", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list), "\x00"), "\x00") {
		if name == "" || slices.ContainsFunc(hiddenXattrs, func(p string) bool { return strings.HasPrefix(name, p) }) {
			continue
		}
		value, err := readXattr(func(b []byte) (int, error) { return unix.Getxattr(link, name, b) })
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("getxattr "+name, err)
		}
		if h.PAXRecords == nil {
			h.PAXRecords = make(map[string]string)
		}
		h.PAXRecords["SCHILY.xattr."+name] = string(value)
	}
	return nil
}

func readXattr(read func([]byte) (int, error)) ([]byte, error) {
	for size := 1 << 10; ; size *= 4 {
		b := make([]byte, size)
		n, err := read(b)
		if errors.Is(err, unix.ERANGE) && size < 1<<20 {
			continue
		}
		if err != nil {
			return nil, err
		}
		return b[:n], nil
	}
}
