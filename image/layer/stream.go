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
	chunkCount = 8 // on their way at a time; 2 MiB a layer
)

// stream turns a blob into its tar: it reads and decompresses in one goroutine
// and hashes in a second, while a third, the caller of Read, unpacks.
//
// It is also what keeps Read free of everything but memory: the caller may be
// on a thread with another root directory, where a reconnect of the network
// below would look up names in the image's /etc.
type stream struct {
	src      *bufio.Reader
	limits   Limits
	progress func(n int)

	plain   chan []byte // decompressed, not yet hashed
	hashed  chan []byte // closed at the end, after err is set
	free    chan []byte
	stop    chan struct{}
	stopped sync.Once
	workers sync.WaitGroup

	sum hash.Hash
	err error // why hashed was closed; nil for a whole and verified blob

	cur, rest []byte // of the reader
}

// newStream starts on src, of which no more than limits.Bytes may come out
// decompressed. progress is told of every piece. close must be called.
func newStream(src io.Reader, limits Limits, progress func(n int)) *stream {
	s := &stream{
		src: bufio.NewReaderSize(sourceReader{src}, chunkSize), limits: limits, progress: progress,
		plain: make(chan []byte), hashed: make(chan []byte, chunkCount), free: make(chan []byte, chunkCount),
		stop: make(chan struct{}), sum: sha256.New(),
	}
	for range chunkCount {
		s.free <- make([]byte, chunkSize)
	}
	readErr := make(chan error, 1)
	s.workers.Go(func() { readErr <- s.inflate(); close(s.plain) })
	s.workers.Go(func() { s.hash(readErr) })
	return s
}

// inflate fills chunks until the blob is at its end, and reads that end: only
// there does the source compare the digest.
func (s *stream) inflate() error {
	r, err := s.decompress()
	if err != nil {
		return corrupt(err)
	}
	defer r.Close()
	for total := int64(0); ; {
		var buf []byte
		select {
		case buf = <-s.free:
		case <-s.stop:
			return errStopped
		}
		n, err := fill(r, buf)
		total += int64(n)
		if total > s.limits.Bytes {
			return fmt.Errorf("more than %d bytes when unpacked: %w", s.limits.Bytes, errdefs.ErrResourceExhausted)
		}
		s.progress(n)
		select {
		case s.plain <- buf[:n]:
		case <-s.stop:
			return errStopped
		}
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, s.src)
			return err
		}
		if err != nil {
			return corrupt(err)
		}
	}
}

func (s *stream) hash(readErr <-chan error) {
	defer close(s.hashed)
	for buf := range s.plain {
		_, _ = s.sum.Write(buf) // hash.Hash.Write never fails
		s.hashed <- buf         // has room for all chunks there are
	}
	s.err = <-readErr
}

// Read is io.Reader over the tar. It ends with io.EOF only when the whole blob
// was read and found right.
func (s *stream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.cur != nil {
			s.free <- s.cur[:chunkSize]
		}
		buf, ok := <-s.hashed
		if !ok {
			s.cur = nil
			if s.err != nil {
				return 0, s.err
			}
			return 0, io.EOF
		}
		s.cur, s.rest = buf, buf
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// diffID is the digest of the tar, after Read has returned io.EOF.
func (s *stream) diffID() digest.Digest { return digest.NewDigest(digest.SHA256, s.sum) }

// halt tells the workers to leave. They do so after the source's next answer.
func (s *stream) halt() { s.stopped.Do(func() { close(s.stop) }) }

// close waits for the workers. Whoever closes a stream early ends its source
// before, or waits for it.
func (s *stream) close() {
	s.halt()
	s.workers.Wait()
}

// ErrSource marks what came from the source of a blob, as against what its
// content brought about.
var ErrSource = errors.New("read blob")

// sourceReader marks the errors of a source.
type sourceReader struct{ r io.Reader }

func (s sourceReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", ErrSource, err)
	}
	return n, err
}

// corrupt gives a class to what a decompressor complains of.
func corrupt(err error) error {
	switch {
	case errors.Is(err, ErrSource), errdefs.IsNotImplemented(err), errdefs.IsInvalidArgument(err), errdefs.IsAborted(err):
		return err
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		return fmt.Errorf("decompress layer: a zstd frame has a larger window than the first one, and than %d bytes: %w: %w",
			usualWindow, err, errdefs.ErrDataLoss)
	}
	return fmt.Errorf("decompress layer: %w: %w", err, errdefs.ErrDataLoss)
}

var errStopped = fmt.Errorf("unpacking was ended: %w", errdefs.ErrAborted)

// fill reads until buf is full. Unlike io.ReadFull it hands on the reader's own
// error, so that a truncated stream is told from one that ends.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}
