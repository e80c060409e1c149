// Package trash deletes directory trees in the background. Put moves a tree into the bin with one
// rename, so that its caller does not wait, and Run deletes the files. A bin that is not empty when
// the process dies is emptied by the next process.
package trash

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Bin is a directory on the file system of the trees that are put into it.
type Bin struct {
	dir  string
	wake chan struct{} // has the capacity one; full if the bin may not be empty
}

// New returns the bin at dir. Only Run and Empty delete trees.
func New(dir string) *Bin {
	return &Bin{dir: dir, wake: make(chan struct{}, 1)}
}

// Put moves path into the bin. It is not an error if path does not exist.
func (b *Bin) Put(path string) error {
	err := os.Rename(path, filepath.Join(b.dir, rand.Text()))
	if errors.Is(err, fs.ErrNotExist) {
		if _, statErr := os.Lstat(path); errors.Is(statErr, fs.ErrNotExist) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("move %s to trash: %w", path, err)
	}
	select {
	case b.wake <- struct{}{}:
	default:
	}
	return nil
}

// PutAll moves everything in dir into the bin and leaves dir empty.
func (b *Bin) PutAll(dir string) error {
	entries, err := os.ReadDir(dir)
	errs := []error{err}
	for _, e := range entries {
		errs = append(errs, b.Put(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}

// Run empties the bin at once and after each Put, until ctx ends. It calls report with the errors of
// trees that cannot be deleted, and tries to delete them again after the next Put.
func (b *Bin) Run(ctx context.Context, report func(error)) {
	for {
		if err := b.Empty(ctx); err != nil {
			report(err)
		}
		select {
		case <-b.wake:
		case <-ctx.Done():
			return
		}
	}
}

// Empty deletes all trees in the bin. If ctx ends, Empty stops after the current tree.
func (b *Bin) Empty(ctx context.Context) error {
	for {
		entries, err := b.empty(ctx)
		if err != nil || entries == 0 || ctx.Err() != nil {
			return err
		}
	}
}

// empty deletes the trees that are in the bin, and returns their number. Parts of deep trees can be
// in the bin afterwards as trees of their own.
func (b *Bin) empty(ctx context.Context) (int, error) {
	entries, err := os.ReadDir(b.dir)
	errs := []error{err}
	for _, e := range entries {
		if ctx.Err() != nil {
			break
		}
		errs = append(errs, b.remove(e.Name()))
	}
	if err := errors.Join(errs...); err != nil {
		return len(entries), fmt.Errorf("empty trash: %w", err)
	}
	return len(entries), nil
}

// maxDepth is the maximum depth to which a tree is deleted recursively. Each level needs an open
// directory, and a container can nest more directories than a process may have open.
const maxDepth = 64

// remove deletes a tree of the bin.
func (b *Bin) remove(name string) error {
	bin, err := unix.Open(b.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: b.dir, Err: err}
	}
	defer unix.Close(bin)
	return remove(bin, bin, name, 0)
}

// remove deletes the file or tree with a name in the directory parent. A directory at maxDepth is moved
// to the bin instead.
func remove(bin, parent int, name string, depth int) error {
	err := unix.Unlinkat(parent, name, 0)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case !errors.Is(err, unix.EISDIR):
		return &os.PathError{Op: "unlink", Path: name, Err: err}
	}
	if depth == maxDepth {
		return pathError("rename", name, unix.Renameat(parent, name, bin, rand.Text()))
	}
	if err := removeContent(bin, parent, name, depth); err != nil {
		return err
	}
	return pathError("rmdir", name, unix.Unlinkat(parent, name, unix.AT_REMOVEDIR))
}

// removeContent deletes the entries of a directory. It does not enter mounted file systems.
func removeContent(bin, parent int, name string, depth int) error {
	fd, err := unix.Openat2(parent, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return pathError("open", name, err)
	}
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(1024)
		var errs []error
		for _, entry := range names {
			errs = append(errs, remove(bin, fd, entry, depth+1))
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if len(names) == 0 {
			return nil
		}
		// The directory has changed, so Readdirnames may have skipped entries.
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
}

// pathError returns err as a PathError, or nil.
func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}
