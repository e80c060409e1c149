package filetar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/criserver/criserver/image/changes"
	"golang.org/x/sys/unix"
)

// maxDeleted is the maximum number of deleted files in a checkpoint. A deleted directory counts as one file.
const maxDeleted = 1 << 20

// RootFS is the root file system of a container.
type RootFS struct {
	changes.Layers
	Merged string // the mount point of the overlay
}

// WriteChanges writes the files that the container has added or changed as a tar to w, and returns the absolute paths
// of the files of the image that the container has deleted. The container must be frozen. If WriteChanges cannot find
// or read a change, WriteChanges returns an error.
func WriteChanges(ctx context.Context, r RootFS, w io.Writer) (deleted []string, err error) {
	top, err := os.OpenFile(r.Merged, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer top.Close()
	out := New(ctx, top, w)
	summary, err := changes.Compare(ctx, r.Layers, func(c changes.Change) error {
		name := strings.TrimPrefix(c.Path, "/")
		switch {
		case c.Kind == changes.Removed && !c.Opaque:
			deleted = append(deleted, c.Path)
		case c.Opaque:
			hidden, err := r.hidden(name)
			if err != nil {
				return err
			}
			deleted = append(deleted, hidden...)
			return out.Add(name)
		case c.From != "":
			// Compare does not report the files below a renamed directory, because overlay does not copy the files.
			return out.AddTree(name)
		default:
			return out.Add(name)
		}
		if len(deleted) > maxDeleted {
			return fmt.Errorf("the container has removed more than %d files of its image", maxDeleted)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case summary.Incomplete:
		return nil, errors.New("the writable layer of the container has too many files")
	case summary.Skipped > 0:
		return nil, fmt.Errorf("%d files of the writable layer of the container cannot be read", summary.Skipped)
	}
	return deleted, out.Close()
}

// hidden returns the paths of the deleted files below a directory that the container has deleted and created again.
// The layers of the image have the files, and the container has not. For a deleted tree, hidden returns only the top.
func (r RootFS) hidden(name string) ([]string, error) {
	found := make(map[string]bool)
	for _, layer := range r.Lower {
		root, err := os.OpenRoot(layer)
		if err != nil {
			return nil, err
		}
		err = fs.WalkDir(root.FS(), name, func(p string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) || err != nil && p == name {
				return nil // the layer does not have the directory
			}
			if err != nil {
				return err
			}
			info, err := os.Lstat(filepath.Join(r.Merged, p))
			if err == nil && (info.IsDir() || !d.IsDir()) {
				return nil
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
				return err
			}
			if err != nil {
				found[path.Join("/", p)] = true
			}
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		})
		if err := errors.Join(err, root.Close()); err != nil {
			return nil, fmt.Errorf("compare removed directory %q: %w", name, err)
		}
	}
	var list []string
	for p := range found {
		list = append(list, p)
	}
	slices.Sort(list)
	return list, nil
}
