package layer

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

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/ctxio"
	"github.com/criserver/criserver/internal/tarheader"
	"golang.org/x/sys/unix"
)

// WriteTar writes a tar of the files of the layer. The tar unpacks to the same layer, but it need not be
// the tar from which the layer was unpacked: the order of the entries, the format of their headers, the
// names of owners and the entries of whiteouts are as WriteTar writes them. The tar of a layer is always the
// same, and WriteTar of the layer that is unpacked from it writes the same tar again.
func (l *Layer) WriteTar(ctx context.Context, w io.Writer) error {
	t := &tarWriter{Writer: tar.NewWriter(w), implied: make(map[string]bool, len(l.Implied)), links: make(map[inode]string)}
	for _, name := range l.Implied {
		t.implied[name] = true
	}
	d, err := os.Open(l.Dir())
	if err != nil {
		return fmt.Errorf("write tar of layer %s: %w", l.DiffID, err)
	}
	if err = t.addRoot(ctx, d, l.OpaqueRoot); err == nil {
		err = t.Close()
	}
	if err != nil {
		return fmt.Errorf("write tar of layer %s: %w", l.DiffID, err)
	}
	return nil
}

// tarWriter writes the entries of a layer. All paths are relative to the root of the layer.
type tarWriter struct {
	*tar.Writer
	implied map[string]bool  // directories without an entry of their own
	links   map[inode]string // the first path of each file with several links
}

// inode identifies a file.
type inode struct{ device, number uint64 }

// addRoot adds the root directory and everything below it, and closes d.
func (t *tarWriter) addRoot(ctx context.Context, d *os.File, opaque bool) error {
	if !t.implied["."] {
		var st unix.Stat_t
		if err := unix.Fstat(int(d.Fd()), &st); err != nil {
			return errors.Join(err, d.Close())
		}
		h, err := t.header("./", &st, fdPath(d))
		if err == nil {
			err = t.WriteHeader(h)
		}
		if err != nil {
			return errors.Join(err, d.Close())
		}
	}
	return t.addTree(ctx, d, "", opaque)
}

// addTree adds the content of an open directory, and closes it.
func (t *tarWriter) addTree(ctx context.Context, d *os.File, dir string, opaque bool) error {
	defer d.Close()
	if opaque {
		if err := t.addMarker(path.Join(dir, opaqueMarker)); err != nil {
			return err
		}
	}
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := t.addNode(ctx, d, dir, name); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// addNode adds the entry of a directory with a name, and everything below it.
func (t *tarWriter) addNode(ctx context.Context, d *os.File, dir, name string) error {
	full := path.Join(dir, name)
	var st unix.Stat_t
	if err := unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "fstatat", Path: full, Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return t.addDir(ctx, d, full, name, &st)
	case unix.S_IFCHR:
		if st.Rdev == 0 {
			return t.addMarker(path.Join(dir, whiteoutPrefix+name))
		}
	case unix.S_IFSOCK:
		return nil // a tar cannot have sockets
	}
	h, err := t.header(full, &st, fdPath(d)+"/"+name)
	if err != nil {
		return err
	}
	if first, ok := t.firstLink(full, &st); !ok {
		h.Typeflag, h.Linkname, h.Size, h.PAXRecords = tar.TypeLink, first, 0, nil
		return t.WriteHeader(h)
	}
	if h.Typeflag == tar.TypeReg {
		return t.addFile(ctx, d, name, h)
	}
	if h.Typeflag == tar.TypeSymlink {
		target := make([]byte, maxName)
		n, err := unix.Readlinkat(int(d.Fd()), name, target)
		if err != nil {
			return &os.PathError{Op: "readlinkat", Path: full, Err: err}
		}
		h.Linkname = string(target[:n])
	}
	return t.WriteHeader(h)
}

// firstLink returns the path of the first link to a file that was added. ok is true if the path full is
// the first link.
func (t *tarWriter) firstLink(full string, st *unix.Stat_t) (first string, ok bool) {
	if st.Nlink < 2 {
		return full, true
	}
	key := inode{st.Dev, st.Ino}
	if first, ok := t.links[key]; ok {
		return first, false
	}
	t.links[key] = full
	return full, true
}

// addDir adds a directory and everything below it. An implied directory has no entry.
func (t *tarWriter) addDir(ctx context.Context, parent *os.File, full, name string, st *unix.Stat_t) error {
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "openat", Path: full, Err: err}
	}
	d := os.NewFile(uintptr(fd), full)
	opaque, err := isOpaque(fdPath(d) + "/.")
	if err == nil && !t.implied[full] {
		var h *tar.Header
		if h, err = t.header(full+"/", st, fdPath(d)+"/."); err == nil {
			err = t.WriteHeader(h)
		}
	}
	if err != nil {
		return errors.Join(err, d.Close())
	}
	return t.addTree(ctx, d, full, opaque)
}

// addFile adds a regular file with its content.
func (t *tarWriter) addFile(ctx context.Context, d *os.File, name string, h *tar.Header) error {
	fd, err := unix.Openat(int(d.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "openat", Path: h.Name, Err: err}
	}
	f := os.NewFile(uintptr(fd), h.Name)
	defer f.Close()
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(t.Writer, io.LimitReader(ctxio.NewReader(ctx, f), h.Size))
	if err == nil && n < h.Size {
		err = fmt.Errorf("file %q has %d bytes, and had %d when it was unpacked: %w", h.Name, n, h.Size, errdefs.ErrDataLoss)
	}
	return err
}

// addMarker adds the entry of a whiteout or of an opaque directory. The layer does not have the metadata
// of these entries.
func (t *tarWriter) addMarker(name string) error {
	return t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, ModTime: time.Unix(0, 0), Format: tar.FormatPAX})
}

// header returns the header of a file. access is a path through which the file can be accessed.
func (t *tarWriter) header(name string, st *unix.Stat_t, access string) (*tar.Header, error) {
	h := tarheader.FromStat(name, st)
	if h == nil {
		return nil, fmt.Errorf("file %q has mode %o, which a tar cannot have: %w", name, st.Mode, errdefs.ErrDataLoss)
	}
	attrs, err := allXattrs(access)
	if err != nil {
		return nil, err
	}
	for attr, value := range attrs {
		if allowedXattr(attr, h.Typeflag) && !strings.Contains(attr, "=") {
			if h.PAXRecords == nil {
				h.PAXRecords = make(map[string]string)
			}
			h.PAXRecords[xattrRecord+attr] = string(value)
		}
	}
	return h, nil
}

// fdPath returns a path of an open file. It is used with a final component, because the file system calls
// for attributes do not follow a symbolic link at the end.
func fdPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }
