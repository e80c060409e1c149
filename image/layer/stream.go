package layer

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

const (
	chunkSize  = 256 << 10
	chunkCount = 8 // per layer, which makes 2 MiB
)

// stream decompresses a blob. One goroutine reads and decompresses the blob, a second goroutine
// hashes the tar, and a third goroutine, the caller of Read, unpacks the tar.
//
// Read accesses nothing but memory. The root directory of the thread of the caller may be the
// layer, where a new connection would resolve names with the /etc of the image.
type stream struct {
	src      *bufio.Reader
	limits   Limits
	progress func(n int)

	plain    chan []byte // decompressed, not yet hashed
	hashed   chan []byte // closed at the end, after err has been set
	free     chan []byte // empty chunks
	stopping chan struct{}
	stopOnce sync.Once
	workers  sync.WaitGroup

	sum hash.Hash
	err error // nil if the blob is complete and its digest is right; set before hashed is closed

	// chunk is the chunk that Read returns at present, and rest its part that Read has not returned.
	chunk, rest []byte
}

// newStream returns a stream of the tar in src. The stream ends with an error after limits.Bytes
// decompressed bytes. progress is called with the size of each decompressed chunk. The caller must
// call close.
func newStream(src io.Reader, limits Limits, progress func(n int)) *stream {
	s := &stream{
		src: bufio.NewReaderSize(sourceReader{src}, chunkSize), limits: limits, progress: progress,
		plain: make(chan []byte), hashed: make(chan []byte, chunkCount), free: make(chan []byte, chunkCount),
		stopping: make(chan struct{}), sum: sha256.New(),
	}
	for range chunkCount {
		s.free <- make([]byte, chunkSize)
	}
	readErr := make(chan error, 1)
	s.workers.Go(func() { readErr <- s.decompressChunks(); close(s.plain) })
	s.workers.Go(func() { s.hashChunks(readErr) })
	return s
}

// decompressChunks fills chunks until the end of the tar. Then it reads the rest of the blob,
// because the source verifies the digest at the end of the blob.
func (s *stream) decompressChunks() error {
	r, err := s.newDecompressor()
	if err != nil {
		return classifyDecompression(err)
	}
	defer r.Close()
	for total := int64(0); ; {
		var buf []byte
		select {
		case buf = <-s.free:
		case <-s.stopping:
			return errStopped
		}
		n, err := fill(r, buf)
		total += int64(n)
		if total > s.limits.Bytes {
			return fmt.Errorf("layer has more than %d bytes when decompressed: %w", s.limits.Bytes, errdefs.ErrResourceExhausted)
		}
		s.progress(n)
		select {
		case s.plain <- buf[:n]:
		case <-s.stopping:
			return errStopped
		}
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, s.src)
			return err
		}
		if err != nil {
			return classifyDecompression(err)
		}
	}
}

// hashChunks hashes the chunks and then sets the error of the stream.
func (s *stream) hashChunks(readErr <-chan error) {
	defer close(s.hashed)
	for buf := range s.plain {
		_, _ = s.sum.Write(buf) // hash.Hash.Write never fails
		s.hashed <- buf         // never blocks, because the channel has room for all chunks
	}
	s.err = <-readErr
}

// Read implements io.Reader. It returns io.EOF only after the complete blob has been read and its
// digest is right.
func (s *stream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.chunk != nil {
			s.free <- s.chunk[:chunkSize]
		}
		buf, ok := <-s.hashed
		if !ok {
			s.chunk = nil
			if s.err != nil {
				return 0, s.err
			}
			return 0, io.EOF
		}
		s.chunk, s.rest = buf, buf
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// diffID returns the digest of the tar. It is called after Read has returned io.EOF.
func (s *stream) diffID() digest.Digest { return digest.NewDigest(digest.SHA256, s.sum) }

// stop makes the workers return after their current read of the source.
func (s *stream) stop() { s.stopOnce.Do(func() { close(s.stopping) }) }

// close stops the workers and waits for them. A source that waits for data must be aborted before.
func (s *stream) close() {
	s.stop()
	s.workers.Wait()
}

// ErrSource is in the chain of errors of the source of a blob. Other errors of unpacking are caused
// by the content of the blob or by the store.
var ErrSource = errors.New("read blob")

// sourceReader adds ErrSource to the errors of a source.
type sourceReader struct{ r io.Reader }

func (s sourceReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", ErrSource, err)
	}
	return n, err
}

// classifyDecompression adds ErrDataLoss to the errors of a decompressor, unless the error has
// another cause.
func classifyDecompression(err error) error {
	switch {
	case errors.Is(err, ErrSource), errdefs.IsNotImplemented(err), errdefs.IsInvalidArgument(err), errdefs.IsAborted(err):
		return err
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		return fmt.Errorf("decompress layer: a zstd frame has a larger window than the first frame and than %d bytes: %w: %w",
			minWindow, err, errdefs.ErrDataLoss)
	}
	return fmt.Errorf("decompress layer: %w: %w", err, errdefs.ErrDataLoss)
}

var errStopped = fmt.Errorf("unpacking was stopped: %w", errdefs.ErrAborted)

// fill reads until buf is full. Unlike io.ReadFull, it returns the error of the reader unchanged, so
// that a truncated stream (io.ErrUnexpectedEOF) differs from a stream that ends (io.EOF).
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}
