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

// blob is the body of a blob that is being fetched. One goroutine reads it.
type blob struct {
	ctx    context.Context //nolint:containedctx // of the call that opened it, for the requests that go on with it
	client *Client
	digest digest.Digest
	size   int64  // -1 if it is unknown
	etag   string // of the first answer, if it is a strong one

	body   io.ReadCloser
	offset int64 // of the next byte
	// failures counts the attempts to resume since an attempt last read enough bytes.
	failures int
	resumed  int64 // the offset at the last attempt
	broken   error // the body has ended with this, before its time
}

// enough is the number of bytes after which a failure resets the count of failures.
const enough = 256 << 10

func (b *blob) failed(err error) error {
	return fmt.Errorf("fetch blob %s of %s/%s: %w", b.digest, b.client.cfg.Host, b.client.cfg.Repository, err)
}

// open requests the blob from the offset on.
func (b *blob) open() error {
	header := http.Header{}
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
			return fmt.Errorf("asked for bytes from %d on, got the range %.80q: %w", b.offset, res.Header.Get("Content-Range"), errdefs.ErrDataLoss)
		}
		return nil
	}
	return newStatusError(res)
}

// skip reads and drops the bytes before the offset, for servers without support for ranges.
func (b *blob) skip(body io.Reader) error {
	buf := make([]byte, 64<<10)
	for left := b.offset; left > 0; {
		n, err := body.Read(buf[:min(left, int64(len(buf)))])
		left -= int64(n)
		b.client.cfg.Moved()
		if err != nil && left > 0 {
			return unexpected(err)
		}
	}
	return nil
}

// rangeStart returns the first offset of "bytes FIRST-LAST/SIZE".
func rangeStart(header string) (int64, bool) {
	rest, ok := strings.CutPrefix(header, "bytes ")
	if !ok {
		return 0, false
	}
	first, _, ok := strings.Cut(rest, "-")
	n, err := strconv.ParseInt(first, 10, 64)
	return n, ok && err == nil
}

// Read is io.Reader. It ends with io.EOF when the blob has its size, if that is
// known.
func (b *blob) Read(p []byte) (int, error) {
	for {
		if b.broken != nil {
			if err := b.resume(); err != nil {
				return 0, b.failed(err)
			}
		}
		n, err := b.body.Read(p)
		b.offset += int64(n)
		switch {
		case b.size >= 0 && b.offset > b.size:
			return n, b.failed(fmt.Errorf("it is longer than its %d bytes: %w", b.size, errdefs.ErrDataLoss))
		case err == nil, errors.Is(err, io.EOF) && (b.size < 0 || b.offset == b.size):
			return n, err
		}
		b.broken = unexpected(err)
		if n > 0 {
			return n, nil
		}
	}
}

// resume continues the blob with another request.
func (b *blob) resume() error {
	_ = b.body.Close()
	for {
		if b.offset-b.resumed >= enough {
			b.failures = 0
		}
		b.resumed = b.offset
		if b.failures++; b.failures >= b.client.cfg.Attempts {
			return fmt.Errorf("after %d bytes: %w", b.offset, b.broken)
		}
		if err := b.client.pause(b.ctx, b.broken, b.failures); err != nil {
			return err
		}
		err := b.open()
		if err == nil {
			b.broken = nil
			return nil
		}
		b.broken = err
	}
}

// Close ends the connection if it is not at its end.
func (b *blob) Close() error { return b.body.Close() }

// unexpected turns the end of a body that is too short into an error.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
