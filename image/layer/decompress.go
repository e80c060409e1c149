package layer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/semaphore"
)

const (
	// maxWindow bounds the memory that a zstd frame can ask for, in bytes;
	// `zstd --ultra -22` takes so much.
	maxWindow = 128 << 20
	// usualWindow is what every decoder should support by the format's
	// recommendation. A blob is taken to have at least this window, because its
	// later frames may have a larger one than the first.
	usualWindow = 8 << 20
	// allWindows bounds the windows of all blobs that are unpacked at a time, of
	// all pulls. It is the same as 32 blobs with the usual window.
	allWindows = 256 << 20
)

// newWindows returns what the streams of a store share: the memory for windows.
func newWindows() *semaphore.Weighted { return semaphore.NewWeighted(allWindows) }

// decompress looks at what the data are, not at what the manifest calls them:
// registries and builders are known to mislabel layers, and the diff ID says
// in the end whether the content is the one that was meant.
func (s *stream) decompress() (io.ReadCloser, error) {
	magic, err := s.src.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b, 0x08}):
		return gzip.NewReader(s.src)
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}), isSkippableFrame(magic):
		return s.unzstd()
	case bytes.HasPrefix(magic, []byte("BZh")), bytes.HasPrefix(magic, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return nil, fmt.Errorf("layer is compressed with bzip2 or xz, which OCI images have not: %w", errdefs.ErrNotImplemented)
	}
	return io.NopCloser(s.src), nil
}

// unzstd decompresses zstd, when there is memory for the window.
func (s *stream) unzstd() (io.ReadCloser, error) {
	window, err := firstWindow(s.src)
	if err != nil {
		return nil, err
	}
	if window > maxWindow {
		return nil, fmt.Errorf("layer has a zstd window of %d bytes, and may have %d: %w", window, maxWindow, errdefs.ErrInvalidArgument)
	}
	window = max(window, usualWindow)
	if err := s.reserve(int64(window)); err != nil {
		return nil, err
	}
	d, err := zstd.NewReader(s.src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(window))
	if err != nil {
		s.unreserve(int64(window))
		return nil, err
	}
	return reserved{d.IOReadCloser(), func() { s.unreserve(int64(window)) }}, nil
}

// reserved gives back the memory for a window when it is closed.
type reserved struct {
	io.ReadCloser
	done func()
}

func (r reserved) Close() error {
	defer r.done()
	return r.ReadCloser.Close()
}

// reserve waits for memory. The blobs that have it are being unpacked, or their
// pulls end; so the wait counts as progress.
func (s *stream) reserve(n int64) error {
	if s.limits.windows == nil || s.limits.windows.TryAcquire(n) {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	granted := make(chan error, 1)
	go func() { granted <- s.limits.windows.Acquire(ctx, n) }()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-granted:
			return err
		case <-tick.C:
			s.progress(1)
		case <-s.stop:
			cancel()
			if <-granted == nil {
				s.unreserve(n)
			}
			return errStopped
		}
	}
}

func (s *stream) unreserve(n int64) {
	if s.limits.windows != nil {
		s.limits.windows.Release(n)
	}
}

// firstWindow returns the window of the first frame that has data, in bytes, and
// skips the frames before it.
func firstWindow(r *bufio.Reader) (uint64, error) {
	for {
		b, err := r.Peek(zstd.HeaderMaxSize)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if len(b) >= skippableHeader && isSkippableFrame(b) {
			size := int64(binary.LittleEndian.Uint32(b[4:]))
			if _, err := io.CopyN(io.Discard, r, skippableHeader+size); err != nil {
				return 0, fmt.Errorf("skip zstd frame: %w", err)
			}
			continue
		}
		var h zstd.Header
		if h.Decode(b) != nil {
			return 0, nil // the decoder says what is wrong
		}
		if h.SingleSegment {
			return h.FrameContentSize, nil
		}
		return h.WindowSize, nil
	}
}

// skippableHeader is the length of the magic number and the size of a frame that
// decoders skip.
const skippableHeader = 8

// isSkippableFrame tells a zstd stream that begins with metadata.
func isSkippableFrame(magic []byte) bool {
	return len(magic) >= 4 && magic[0]&0xf0 == 0x50 && magic[1] == 0x2a && magic[2] == 0x4d && magic[3] == 0x18
}
