package restore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/internal/ctxio"
)

// read calls fn with a reader of a file of the checkpoint, and returns ErrDataLoss if the file differs from the
// manifest, also if fn returns an error. read computes the digest of the bytes that fn reads, so a change of the file
// between a check and its use is not possible.
func (s *session) read(ctx context.Context, file archive.File, fn func(io.Reader) error) error {
	f, err := file.Open(s.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	hash := sha256.New()
	// io.TeeReader has no Seek method, so fn cannot skip bytes.
	r := io.TeeReader(ctxio.NewReader(ctx, io.LimitReader(f, file.Size)), hash)
	err = fn(r)
	if ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	if errdefs.IsResourceExhausted(err) {
		return err
	}
	if _, copyErr := io.Copy(io.Discard, r); copyErr != nil {
		return errors.Join(err, copyErr)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != file.SHA256 {
		return fmt.Errorf("%s has the digest %s, the manifest says %s: %w", file.Path, got, file.SHA256, errdefs.ErrDataLoss)
	}
	return err
}
