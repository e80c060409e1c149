package archive

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Open opens a file of the pod checkpoint in dir and checks the size. The caller must compute the digest of the bytes
// that it reads. Errors: ErrNotFound, ErrDataLoss for another size, and ErrInvalidArgument if the file is not a regular
// file.
func (f File) Open(dir *os.Root) (*os.File, error) {
	file, err := openRegular(dir, f.Path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", f.Path, errors.Join(err, errdefs.ErrNotFound))
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && info.Size() != f.Size {
		err = fmt.Errorf("%s has %d bytes, the manifest says %d: %w", f.Path, info.Size(), f.Size, errdefs.ErrDataLoss)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// Open opens the container archive with an absolute path. Errors: ErrNotFound, and ErrInvalidArgument if the path is a
// link or another file that is not regular.
func Open(path string) (*os.File, error) {
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err == nil {
		defer dir.Close()
		var f *os.File
		if f, err = openRegular(dir, filepath.Base(path)); err == nil {
			return f, nil
		}
	}
	if errors.Is(err, os.ErrNotExist) {
		err = errors.Join(err, errdefs.ErrNotFound)
	}
	return nil, err
}

// ReadInfo returns the description of the container in an archive without authenticating the archive. The description
// is the first entry.
func ReadInfo(r io.Reader) (*ContainerInfo, error) {
	e, err := NewReader(r).Next()
	if errors.Is(err, io.EOF) || err == nil && e.Name != InfoFile {
		return nil, fmt.Errorf("the first entry of the archive is not %s: %w", InfoFile, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return nil, err
	}
	b, err := e.Bytes()
	if err != nil {
		return nil, err
	}
	return ParseInfo(b)
}

// readLimited reads all of r, or returns ErrInvalidArgument if r has more than limit bytes.
func readLimited(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("has more than %d bytes: %w", limit, errdefs.ErrInvalidArgument)
	}
	return b, err
}

// openRegular opens a regular file below dir. openRegular follows no symbolic link at the end of the name, and does
// not wait for the writer of a FIFO.
func openRegular(dir *os.Root, name string) (*os.File, error) {
	before, err := dir.Lstat(name)
	if err != nil {
		return nil, err
	}
	f, err := dir.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || !os.SameFile(before, info)) {
		err = fmt.Errorf("%s is not a regular file: %w", name, errdefs.ErrInvalidArgument)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
