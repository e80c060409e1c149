package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/internal/osthread"
)

// Source is a blob that is being fetched.
type Source struct {
	Blob   Blob
	Reader io.Reader // returns io.EOF only if the digest of the blob is right
	// Progress is called with the number of unpacked bytes of each chunk.
	Progress func(n int)
	// Abort is called if unpacking fails. It makes a Read of Reader that waits for data return.
	Abort func(error)
}

// unpack writes the files of a blob into dir, an empty directory, and returns the layer. If
// unpack fails, the caller deletes dir.
func unpack(ctx context.Context, dir string, src Source, limits Limits) (Layer, error) {
	s := newStream(src.Reader, limits, src.Progress)
	u := newUnpacker(limits)
	err := inRoot(dir, func() error { return u.apply(ctx, s) })
	if err == nil {
		// The digests cover the padding after the end mark of the tar.
		_, err = io.Copy(io.Discard, s)
	}
	if err != nil {
		s.stop()
		src.Abort(err)
	}
	s.close()
	if err != nil {
		return Layer{}, err
	}
	l := u.layer
	l.DiffID, l.Blobs = s.diffID(), []Blob{src.Blob}
	return l, nil
}

// inRoot runs fn on a thread whose root directory is dir. The kernel ensures that neither ".." nor
// a symbolic link in the tar leads out of dir, even if the checks of the names have a gap. fn must
// not start a goroutine that uses files.
func inRoot(dir string, fn func() error) error {
	return osthread.Run(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare root directory: %w", err)
		}
		if err := unix.Chroot(dir); err != nil {
			return fmt.Errorf("change root to %s: %w", dir, err)
		}
		if err := unix.Chdir("/"); err != nil {
			return fmt.Errorf("change root to %s: %w", dir, err)
		}
		unix.Umask(0) // of this thread only, because of CLONE_FS
		return fn()
	})
}

// apply unpacks the tar into the root directory of the thread.
func (u *unpacker) apply(ctx context.Context, tar io.Reader) error {
	_, err := archive.Apply(ctx, "/", tar, archive.WithFilter(u.checkHeader), archive.WithConvertWhiteout(u.placeEntry))
	if err == nil {
		err = u.finish()
	}
	return applyError(ctx, err)
}

// applyError gives an error of the archive library a class.
func applyError(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: %w", err, errdefs.ErrResourceExhausted)
	case err != nil && !hasClass(err) && !isHostFault(err) && ctx.Err() == nil:
		// The tar is most likely invalid: a header that cannot be parsed, a hard link without a
		// target, or a name that is too long.
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return err
}

// isHostFault reports whether the system call of an error failed because of the host, whatever the tar contains.
func isHostFault(err error) bool {
	return slices.ContainsFunc([]error{unix.EIO, unix.EROFS, unix.EUCLEAN, unix.ESTALE, unix.ENOMEM, unix.EMFILE, unix.ENFILE},
		func(number error) bool { return errors.Is(err, number) })
}

// hasClass reports whether err has a class that is more specific than ErrInvalidArgument.
func hasClass(err error) bool {
	return errdefs.IsInvalidArgument(err) || errdefs.IsResourceExhausted(err) || errdefs.IsAborted(err) ||
		errdefs.IsNotImplemented(err) || errdefs.IsDataLoss(err) || errors.Is(err, ErrSource)
}
