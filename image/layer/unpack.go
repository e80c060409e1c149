package layer

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/internal/osthread"
)

// Source is a blob on its way.
type Source struct {
	Blob   Blob
	Reader io.Reader // ends with io.EOF only if the digest is right
	// Progress is told of every piece unpacked.
	Progress func(n int)
	// Abort is called when unpacking fails while the Reader may still be
	// waiting for data; it makes the Reader return.
	Abort func(error)
}

// unpack writes the files of a blob into dir, an empty directory, and says what
// they are. What it leaves in dir when it fails is the caller's to delete.
func unpack(ctx context.Context, dir string, src Source, limits Limits) (Layer, error) {
	s := newStream(src.Reader, limits, src.Progress)
	p := newPlacer(limits)
	err := inRoot(dir, func() error { return p.apply(ctx, s) })
	if err == nil {
		// Behind the tar's end mark there may be padding, which belongs to the
		// digests as well.
		_, err = io.Copy(io.Discard, s)
	}
	if err != nil {
		s.halt()
		src.Abort(err)
	}
	s.close()
	if err != nil {
		return Layer{}, err
	}
	l := p.layer
	l.DiffID, l.Blobs = s.diffID(), []Blob{src.Blob}
	return l, nil
}

// inRoot runs fn with dir as its root directory. Whatever names the tar holds,
// fn has nothing but dir to apply them to: the kernel sees to it that neither
// ".." nor a link leads out, should the checks before it have a hole. fn must
// start no goroutine that uses files.
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
		unix.Umask(0) // the thread's own since unshare
		return fn()
	})
}

// apply unpacks the tar into the root directory.
func (p *placer) apply(ctx context.Context, tar io.Reader) error {
	_, err := archive.Apply(ctx, "/", tar, archive.WithFilter(p.check), archive.WithConvertWhiteout(p.place))
	if err == nil {
		err = p.finish()
	}
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: %w", err, errdefs.ErrResourceExhausted)
	case err != nil && !classed(err) && ctx.Err() == nil:
		// The tar's fault as far as can be told: a header that does not
		// parse, a link to nowhere, a name too long.
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	return err
}

// classed says whether err has a class already that says more than "invalid".
func classed(err error) bool {
	return errdefs.IsInvalidArgument(err) || errdefs.IsResourceExhausted(err) || errdefs.IsAborted(err) ||
		errdefs.IsNotImplemented(err) || errdefs.IsDataLoss(err) || errors.Is(err, ErrSource)
}
