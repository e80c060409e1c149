package layer

import (
	"archive/tar"
	"context"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/errdefs"
)

// Apply writes the entries of a tar over the files of the directory dir, for example over a mounted root file system.
// Unlike the tar of a layer, the tar has no whiteouts, and ".wh." at the beginning of a name has no meaning. The tar is
// not trusted: no name and no link leads out of dir, and device nodes are refused.
//
// Errors: ErrInvalidArgument for an invalid tar or a device node, ErrResourceExhausted for a tar that exceeds the
// limits, and for a full disk. If Apply fails, some entries may have been written.
func Apply(ctx context.Context, dir string, r io.Reader, limits Limits) error {
	u := newUnpacker(limits)
	filter := func(h *tar.Header) (bool, error) {
		if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
			return false, fmt.Errorf("entry %q is a device node: %w", h.Name, errdefs.ErrInvalidArgument)
		}
		return u.checkHeader(h)
	}
	place := func(h *tar.Header, _ string) (bool, error) {
		if h.Typeflag == tar.TypeLink {
			return true, linkXattrs(h)
		}
		return true, nil
	}
	return inRoot(dir, func() error {
		_, err := archive.Apply(ctx, "/", r, archive.WithFilter(filter), archive.WithConvertWhiteout(place))
		if err == nil && u.root != nil {
			err = u.finishRoot()
		}
		return applyError(ctx, err)
	})
}
