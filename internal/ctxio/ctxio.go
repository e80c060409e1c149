// Package ctxio ends the reading of files and streams with a context.
package ctxio

import (
	"context"
	"io"
)

// NewReader returns a reader of r whose Read returns the cause of ctx after ctx has ended. The end of ctx does not
// interrupt a Read of r that has begun.
func NewReader(ctx context.Context, r io.Reader) io.Reader { return reader{ctx, r} }

type reader struct {
	ctx context.Context //nolint:containedctx // lives as long as the call that reads
	r   io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
