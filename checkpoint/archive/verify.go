package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Open opens a file of a pod checkpoint and checks its size. The caller must check the digest with Verify,
// because only then the file is known to be complete. Errors: ErrNotFound, ErrDataLoss for another size, and
// ErrInvalidArgument if the file is not a regular file.
func (f File) Open(dir *os.Root) (*os.File, error) {
	file, err := openRegular(dir, f.Path)
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

// Verify reads the file and returns ErrDataLoss if its digest differs from that of the manifest. file is at its
// beginning before and after the call.
func (f File) Verify(ctx context.Context, file *os.File) error {
	h := sha256.New()
	n, err := io.Copy(h, readerWithContext{ctx, io.NewSectionReader(file, 0, f.Size)})
	if err != nil {
		return fmt.Errorf("read %s: %w", f.Path, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); n != f.Size || got != f.SHA256 {
		return fmt.Errorf("%s has the digest %s, the manifest says %s: %w", f.Path, got, f.SHA256, errdefs.ErrDataLoss)
	}
	return nil
}

// readerWithContext is a reader that ends with a context.
type readerWithContext struct {
	ctx context.Context //nolint:containedctx // lives as long as one copy
	r   io.Reader
}

func (r readerWithContext) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

// openRegular opens a regular file. Neither a link nor a FIFO is opened.
func openRegular(dir *os.Root, name string) (*os.File, error) {
	before, err := dir.Lstat(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", name, errors.Join(err, errdefs.ErrNotFound))
	}
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

// readLimited reads all of r, or returns ErrInvalidArgument if r has more than limit bytes.
func readLimited(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("has more than %d bytes: %w", limit, errdefs.ErrInvalidArgument)
	}
	return b, err
}
