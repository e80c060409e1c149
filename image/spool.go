package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/image/archive"
	"github.com/criserver/criserver/internal/steps"
)

// spaceInterval is the number of bytes between two checks of the free space.
const spaceInterval = 16 << 20

// spool writes an uncompressed copy of an archive to a file below the root of the store, and returns the file and its
// size. announced is the size of r in bytes, or 0 if it is not known. The file has no name, so the kernel deletes the
// file when the caller closes it or the daemon is killed.
func (m *Manager) spool(ctx context.Context, r io.Reader, announced int64) (_ *os.File, size int64, err error) {
	ctx, step := steps.Start(ctx, steps.ImageSpool)
	defer step.EndWith(&err)
	limit := m.maxArchiveBytes.Load()
	if announced > limit {
		return nil, 0, archiveTooLarge(limit)
	}
	if err := m.checkSpace(announced); err != nil {
		return nil, 0, err
	}
	f, err := os.CreateTemp(m.dir(stageDir), "archive-")
	if err != nil {
		return nil, 0, fmt.Errorf("store archive temporarily: %w", err)
	}
	if err = os.Remove(f.Name()); err == nil {
		size, err = m.fillSpool(ctx, f, r, limit)
	}
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("store archive temporarily: %w", classifyDiskFull(err)), f.Close())
	}
	return f, size, nil
}

// classifyDiskFull adds ErrResourceExhausted to an error if the disk or a quota is full.
func classifyDiskFull(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", err, errdefs.ErrResourceExhausted)
	}
	return err
}

func archiveTooLarge(limit int64) error {
	return fmt.Errorf("archive has more than %d bytes (image.max_archive_bytes): %w", limit, errdefs.ErrResourceExhausted)
}

// fillSpool copies the uncompressed archive in r to f.
func (m *Manager) fillSpool(ctx context.Context, f *os.File, r io.Reader, limit int64) (size int64, err error) {
	d, err := archive.Decompress(r)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	for {
		n, err := io.CopyN(f, d, min(spaceInterval, limit-size+1))
		size += n
		switch {
		case size > limit:
			return 0, archiveTooLarge(limit)
		case errors.Is(err, io.EOF):
			return size, nil
		case err != nil:
			return 0, err
		case ctx.Err() != nil:
			return 0, context.Cause(ctx)
		}
		if err := m.checkSpace(0); err != nil {
			return 0, err
		}
	}
}

// checkSpace returns ErrResourceExhausted if n more bytes would not leave the reserve of free space.
func (m *Manager) checkSpace(n int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(m.cfg.Root, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: m.cfg.Root, Err: err}
	}
	free := int64(st.Bavail) * int64(st.Frsize) //nolint:gosec,unconvert // the size of a file system; the type depends on the architecture
	if free-n < m.cfg.SpoolReserve {
		return fmt.Errorf("%s has %d bytes of free space, and the archive must leave %d bytes free: %w",
			m.cfg.Root, free, m.cfg.SpoolReserve, errdefs.ErrResourceExhausted)
	}
	return nil
}
