package restore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/checkpoint/archive"
)

// digestReader computes the digest of what is read. It fails when one of its contexts ends.
type digestReader struct {
	ctx  []context.Context
	r    io.Reader
	hash hash.Hash
}

func (d *digestReader) Read(p []byte) (int, error) {
	for _, ctx := range d.ctx {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
	}
	n, err := d.r.Read(p)
	d.hash.Write(p[:n])
	return n, err
}

// read reads a file of the checkpoint with fn, and returns ErrDataLoss if the file differs from the manifest. The
// digest is computed of the bytes that fn reads, so the file cannot change between a check and its use. If fn fails
// because the file is damaged, the error says so.
func (s *session) read(ctx context.Context, file archive.File, fn func(*digestReader) error) error {
	f, err := file.Open(s.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	r := &digestReader{ctx: []context.Context{ctx}, r: io.LimitReader(f, file.Size), hash: sha256.New()}
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
	if got := hex.EncodeToString(r.hash.Sum(nil)); got != file.SHA256 {
		return fmt.Errorf("%s has the digest %s, the manifest says %s: %w", file.Path, got, file.SHA256, errdefs.ErrDataLoss)
	}
	return err
}
