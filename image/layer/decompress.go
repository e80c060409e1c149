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
	// maxWindow is the maximum size of the window of a zstd frame in bytes. A decoder needs that
	// much memory. `zstd --ultra -22` uses windows of this size.
	maxWindow = 128 << 20
	// minWindow is the size of window that every decoder should support, as the format recommends.
	// Each decoder gets at least this size, because later frames can have a larger window than the
	// first frame.
	minWindow = 8 << 20
	// allWindows is the maximum size of the windows of all layers that are unpacked in parallel, of
	// all pulls together. It suffices for 32 layers with the minimum window.
	allWindows = 256 << 20
)

// newWindows returns the semaphore for the memory of windows, which the streams of a store share.
func newWindows() *semaphore.Weighted { return semaphore.NewWeighted(allWindows) }

// newDecompressor returns a reader of the tar. It detects the compression from the data and not
// from the media type, because registries and builders mislabel layers. The diff ID shows whether
// the content is right.
//
// The decompressors of containers/image (pkg/compression) are not used, because they accept zstd
// windows of 512 MiB, have no common limit, and read 4 MiB of gzip ahead per layer. See
// docs/dependencies.md.
func (s *stream) newDecompressor() (io.ReadCloser, error) {
	magic, err := s.src.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b, 0x08}):
		return gzip.NewReader(s.src)
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}), isSkippableFrame(magic):
		return s.newZstdDecompressor()
	case bytes.HasPrefix(magic, []byte("BZh")), bytes.HasPrefix(magic, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return nil, fmt.Errorf("layer is compressed with bzip2 or xz, which OCI does not allow: %w", errdefs.ErrNotImplemented)
	}
	return io.NopCloser(s.src), nil
}

// newZstdDecompressor returns a reader of a zstd blob. It waits until there is memory for the window.
func (s *stream) newZstdDecompressor() (io.ReadCloser, error) {
	window, err := firstWindow(s.src)
	if err != nil {
		return nil, err
	}
	if window > maxWindow {
		return nil, fmt.Errorf("layer has a zstd window of %d bytes, at most %d are allowed: %w", window, maxWindow, errdefs.ErrInvalidArgument)
	}
	window = max(window, minWindow)
	if err := s.acquireWindow(int64(window)); err != nil {
		return nil, err
	}
	d, err := zstd.NewReader(s.src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(window))
	if err != nil {
		s.releaseWindow(int64(window))
		return nil, err
	}
	return windowReader{d.IOReadCloser(), func() { s.releaseWindow(int64(window)) }}, nil
}

// windowReader releases the memory of its window when it is closed.
type windowReader struct {
	io.ReadCloser
	release func()
}

func (r windowReader) Close() error {
	defer r.release()
	return r.ReadCloser.Close()
}

// acquireWindow waits for n bytes of memory. The layers that have the memory make progress, or
// their pulls end. So acquireWindow reports progress while it waits.
func (s *stream) acquireWindow(n int64) error {
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
		case <-s.stopping:
			cancel()
			if <-granted == nil {
				s.releaseWindow(n)
			}
			return errStopped
		}
	}
}

func (s *stream) releaseWindow(n int64) {
	if s.limits.windows != nil {
		s.limits.windows.Release(n)
	}
}

// firstWindow returns the window size in bytes of the first frame with data. It skips the skippable
// frames before that frame.
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
			return 0, nil // the decoder reports the error
		}
		if h.SingleSegment {
			return h.FrameContentSize, nil
		}
		return h.WindowSize, nil
	}
}

// skippableHeader is the length in bytes of the header of a skippable frame: a magic number and the
// size of the frame.
const skippableHeader = 8

// isSkippableFrame reports whether data begin with a skippable zstd frame, which has metadata.
func isSkippableFrame(magic []byte) bool {
	return len(magic) >= 4 && magic[0]&0xf0 == 0x50 && magic[1] == 0x2a && magic[2] == 0x4d && magic[3] == 0x18
}
