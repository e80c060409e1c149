// Package filetar writes files of a directory tree to a tar: the changed files of a root file system, and the files
// of /dev/shm. A container controls the files, so a Writer follows no symbolic link, and reads no file of another file
// system.
package filetar

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/criserver/criserver/internal/ctxio"
	"github.com/criserver/criserver/internal/tarheader"
	"golang.org/x/sys/unix"
)

// Writer writes files of one tree to a tar. The names of the entries are relative to the top of the tree.
type Writer struct {
	ctx   context.Context //nolint:containedctx // lives as long as the call that makes the tar
	top   *os.File
	tar   *tar.Writer
	links map[inode]string // the first name of each file with several links
	seen  map[string]bool  // names of the entries
}

type inode struct{ dev, ino uint64 }

// New returns a Writer of the files below the directory top to w. The writes fail when ctx ends.
func New(ctx context.Context, top *os.File, w io.Writer) *Writer {
	return &Writer{ctx: ctx, top: top, tar: tar.NewWriter(w), links: make(map[inode]string), seen: make(map[string]bool)}
}

// Close ends the tar.
func (w *Writer) Close() error { return w.tar.Close() }

// Add adds the file with the path name, relative to the top; "" is the top. Add does not add the files in a directory.
// Add ignores a name that has an entry already, and sockets, because CRIU creates a socket again when CRIU restores
// the process that listens.
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

// AddTree adds a file. If the file is a directory, AddTree also adds everything below the directory.
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

// add adds the file f, which was opened with O_PATH.
func (w *Writer) add(f *os.File, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	h := tarheader.FromStat(cmp.Or(name, "."), &st)
	if h == nil {
		return nil
	}
	if h.Typeflag == tar.TypeDir {
		h.Name += "/"
	}
	if w.seen[h.Name] {
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

// addContent writes the header h and the content of the regular file with the metadata want. The containers that can
// change the file are frozen. addContent returns an error if another file has the name now.
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
		return errors.New("another file has this name now")
	}
	if err := w.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(w.tar, io.LimitReader(ctxio.NewReader(w.ctx, f), h.Size))
	return err
}

// open opens a file below the top. The kernel refuses symbolic links and other file systems on the path.
func (w *Writer) open(name string, flags uint64) (*os.File, error) {
	if w.ctx.Err() != nil {
		return nil, context.Cause(w.ctx)
	}
	name = cmp.Or(name, ".")
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

// readlink returns the target of a symbolic link.
func readlink(f *os.File) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f.Fd()), "", buf)
	if err != nil {
		return "", os.NewSyscallError("readlinkat", err)
	}
	return string(buf[:n]), nil
}

// hiddenXattrs are the prefixes of extended attributes that the tar does not contain. The attributes of overlay are
// valid only in the layers of this node, and the pod of a restored container has its own SELinux label.
var hiddenXattrs = []string{"trusted.overlay.", "user.overlay.", "security.selinux"}

// addXattrs adds the extended attributes of the file f, which was opened with O_PATH, to a header.
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

// readXattr calls read with buffers of growing size until the result fits.
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
