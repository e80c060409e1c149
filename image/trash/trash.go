// Package trash deletes directory trees without making anyone wait: a tree is
// moved aside by one rename, and its files go when there is time. What is in
// the bin when the process dies is deleted by the next one.
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
	wake chan struct{} // capacity one: full when there may be work
}

// New returns the bin at dir. Run must be running for it ever to be emptied.
func New(dir string) *Bin {
	return &Bin{dir: dir, wake: make(chan struct{}, 1)}
}

// Put moves path into the bin. That path does not exist is no error.
func (b *Bin) Put(path string) error {
	err := os.Rename(path, filepath.Join(b.dir, rand.Text()))
	if errors.Is(err, fs.ErrNotExist) {
		if _, serr := os.Lstat(path); errors.Is(serr, fs.ErrNotExist) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("move to trash: %w", err)
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

// Run empties the bin now and whenever something is put into it, until ctx
// ends. Report is told of what could not be deleted; it is tried again with the
// next thing that is put in.
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

// Empty deletes what is in the bin. It stops between two trees when ctx ends.
func (b *Bin) Empty(ctx context.Context) error {
	for {
		entries, err := b.empty(ctx)
		if err != nil || entries == 0 || ctx.Err() != nil {
			return err
		}
	}
}

// empty deletes the trees that are in the bin, and returns how many there were.
// Of deep ones, parts can be in the bin afterwards as trees of their own.
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

// maxDepth is the depth from which on a tree is not deleted from above. Each
// level costs an open directory, and a container can nest more than a process
// may have open.
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

// remove deletes what name is in the directory parent. A directory that lies too
// deep is moved to the bin instead.
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

// removeContent deletes what is in a directory. It leaves file systems that are
// mounted in there alone.
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
		// Entries can have been passed over, as the directory has changed.
		if _, err := dir.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}
