package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/image/layer"
	"github.com/criserver/criserver/image/pull"
	"github.com/criserver/criserver/internal/atomicfile"
)

// place writes a new image: all of it to the stage, with the layers it needs
// out to the disk in one sync, then to its place in one rename.
func (m *Manager) place(img *stored, res *pull.Result) error {
	stage, err := os.MkdirTemp(m.dir(stageDir), "image-")
	if err != nil {
		return err
	}
	err = m.stage(stage, img, res)
	if err == nil {
		err = m.settle(stage, img)
	}
	// Nothing is left of the stage if it has become the image.
	if err := errors.Join(err, m.bin.Put(stage)); err != nil {
		return err
	}
	return atomicfile.SyncDir(m.dir(imagesDir))
}

// settle moves a staged image to its place. A directory that is there belongs to a broken
// image. If a container may use the broken image, settle keeps the directory and replaces
// only the records, because a mounted root file system may include the cover in the
// directory.
func (m *Manager) settle(stage string, img *stored) error {
	dir := m.imageDir(img.ID)
	if m.userOf(img.ID) == "" {
		return errors.Join(m.bin.Put(dir), os.Rename(stage, dir))
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := keepCover(filepath.Join(dir, coverDir), filepath.Join(stage, coverDir), img.cover); err != nil {
		return fmt.Errorf("replace records of image %s: %w", img.ID, err)
	}
	for _, name := range []string{manifestFile, configFile, recordFile} {
		if err := os.Rename(filepath.Join(stage, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return atomicfile.SyncDir(dir)
}

// keepCover keeps a cover that equals the staged cover. Otherwise it moves the staged cover
// to its place, if the image has a cover.
func keepCover(kept, staged string, wanted bool) error {
	if !wanted {
		return nil
	}
	err := os.Rename(staged, kept)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	same, err := layer.SameTree(context.Background(), kept, staged)
	if err == nil && !same {
		err = fmt.Errorf("%s is damaged, and a container uses it: %w", kept, errdefs.ErrFailedPrecondition)
	}
	return err
}

// maxLower is overlay's bound of read-only layers in one mount.
const maxLower = 500

func (m *Manager) stage(stage string, img *stored, res *pull.Result) error {
	var err error
	stack := layer.NewStack(res.Layers)
	if img.cover, err = stack.WriteCover(filepath.Join(stage, coverDir)); err != nil {
		return err
	}
	if n := len(stack.Dirs()); img.cover && n >= maxLower {
		return fmt.Errorf("image has %d layers and directories that need one more to be right, and overlay takes %d: %w", n, maxLower, errdefs.ErrInvalidArgument)
	}
	if err := img.record().write(stage, res.Manifest, res.RawConfig); err != nil {
		return err
	}
	if err := syncFS(stage); err != nil {
		// The kernel reports a write error once. Layers that no image has yet may
		// be damaged, and the next sync would not show it.
		return errors.Join(err, m.layers.DropOlder(context.Background(), time.Now()))
	}
	return nil
}

// syncFS writes out all of the file system that dir is on.
func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = unix.Syncfs(int(f.Fd()))
	return errors.Join(os.NewSyscallError("syncfs", err), f.Close())
}
