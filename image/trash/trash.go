// Package trash deletes directory trees without making anyone wait: a tree is
// moved aside by one rename, and its files go when there is time. What is in
// the bin when the process dies is deleted by the next one.
package trash

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
	entries, err := os.ReadDir(b.dir)
	errs := []error{err}
	for _, e := range entries {
		if ctx.Err() != nil {
			break
		}
		errs = append(errs, os.RemoveAll(filepath.Join(b.dir, e.Name())))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("empty trash: %w", err)
	}
	return nil
}
