package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// Blob returns a blob and its size, or -1 if the size is unknown. wantSize is the size in the
// manifest, or -1. If the connection breaks, the reader continues on another connection.
func (c *Client) Blob(ctx context.Context, d digest.Digest, wantSize int64) (io.ReadCloser, int64, error) {
	b := &blob{ctx: ctx, client: c, digest: d, size: wantSize}
	if err := c.retry(ctx, b.open); err != nil {
		return nil, 0, b.wrap(err)
	}
	return b, b.size, nil
}

// blob is the body of a blob. Only one goroutine reads it.
type blob struct {
	ctx    context.Context //nolint:containedctx // of the call of Blob, for the requests that resume the body
	client *Client
	digest digest.Digest
	size   int64  // -1 if the size is unknown
	etag   string // of the first response, if it is a strong entity tag

	body   io.ReadCloser
	offset int64 // of the next byte
	// readErr is the error that ended body before the end of the blob, or nil.
	readErr error
	// failures counts the attempts to resume since the last resumeProgress bytes.
	failures     int
	resumeOffset int64 // the offset at the last attempt to resume
}

// resumeProgress is the number of bytes after which the count of failures begins anew.
const resumeProgress = 256 << 10

func (b *blob) wrap(err error) error {
	return fmt.Errorf("fetch blob %s of %s/%s: %w", b.digest, b.client.cfg.Host, b.client.cfg.Repository, err)
}

// open requests the blob from the offset on.
func (b *blob) open() error {
	// Without this header, net/http asks for gzip and decompresses the body of a server that
	// labels a gzip layer with Content-Encoding, so that the digest of the body is wrong.
	header := http.Header{"Accept-Encoding": {"identity"}}
	if b.offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", b.offset))
		if b.etag != "" {
			header.Set("If-Range", b.etag)
		}
	}
	res, err := b.client.get(b.ctx, "blobs/"+b.digest.String(), header)
	if err != nil {
		return err
	}
	if err := b.accept(res); err != nil {
		_ = res.Body.Close()
		return err
	}
	b.body = res.Body
	return nil
}

// accept checks a response and positions its body at the offset.
func (b *blob) accept(res *http.Response) error {
	switch {
	case res.StatusCode == http.StatusOK:
		if b.size < 0 {
			b.size = res.ContentLength
		}
		if tag := res.Header.Get("ETag"); !strings.HasPrefix(tag, "W/") {
			b.etag = tag
		}
		return b.skip(res.Body)
	case res.StatusCode == http.StatusPartialContent && b.offset > 0:
		first, ok := rangeStart(res.Header.Get("Content-Range"))
		if !ok || first != b.offset {
			return fmt.Errorf("requested bytes from %d on, got the range %.80q: %w", b.offset, res.Header.Get("Content-Range"), errdefs.ErrDataLoss)
		}
		return nil
	}
	return newStatusError(res)
}

// skip reads and drops the bytes before the offset, for servers that do not support ranges.
func (b *blob) skip(body io.Reader) error {
	buf := make([]byte, 64<<10)
	for remaining := b.offset; remaining > 0; {
		n, err := body.Read(buf[:min(remaining, int64(len(buf)))])
		remaining -= int64(n)
		b.client.cfg.KeepAlive()
		if err != nil && remaining > 0 {
			return unexpectedEOF(err)
		}
	}
	return nil
}

// rangeStart returns the first offset in "bytes FIRST-LAST/SIZE".
func rangeStart(header string) (int64, bool) {
	rest, ok := strings.CutPrefix(header, "bytes ")
	if !ok {
		return 0, false
	}
	first, _, ok := strings.Cut(rest, "-")
	n, err := strconv.ParseInt(first, 10, 64)
	return n, ok && err == nil
}

// Read implements io.Reader. If the size of the blob is known, Read returns io.EOF only after
// that number of bytes.
func (b *blob) Read(p []byte) (int, error) {
	for {
		if b.readErr != nil {
			if err := b.resume(); err != nil {
				return 0, b.wrap(err)
			}
		}
		n, err := b.body.Read(p)
		b.offset += int64(n)
		switch {
		case b.size >= 0 && b.offset > b.size:
			return n, b.wrap(fmt.Errorf("blob is longer than %d bytes: %w", b.size, errdefs.ErrDataLoss))
		case err == nil:
			return n, nil
		case b.offset == b.size, b.size < 0 && errors.Is(err, io.EOF):
			// A connection that breaks after the last byte does no harm. There is no range to
			// resume.
			return n, io.EOF
		}
		b.readErr = unexpectedEOF(err)
		if n > 0 {
			return n, nil
		}
	}
}

// resume continues the blob with another request. It gives up after as many attempts in a row
// as the client makes, less the first request, unless resumeProgress bytes arrived in between.
func (b *blob) resume() error {
	_ = b.body.Close()
	for {
		if b.offset-b.resumeOffset >= resumeProgress {
			b.failures = 0
		}
		b.resumeOffset = b.offset
		if b.failures++; b.failures >= b.client.cfg.Attempts {
			return fmt.Errorf("resume after %d bytes: %w", b.offset, b.readErr)
		}
		if err := b.client.pause(b.ctx, b.readErr, b.failures); err != nil {
			return err
		}
		err := b.open()
		if err == nil {
			b.readErr = nil
			return nil
		}
		b.readErr = err
	}
}

// Close closes the body. The connection ends unless the body was read to its end.
func (b *blob) Close() error { return b.body.Close() }

// unexpectedEOF replaces io.EOF with io.ErrUnexpectedEOF.
func unexpectedEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
