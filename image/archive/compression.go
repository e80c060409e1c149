package archive

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// compression is the compression of an archive or of a layer in a docker-archive.
type compression int

const (
	notCompressed compression = iota
	gzipFormat
	zstdFormat
	xzFormat    // only archives
	bzip2Format // only archives
	lz4Format   // not supported
)

// magicLength is the number of bytes that detect needs.
const magicLength = 6

// maxWindow is the maximum size in bytes of the window of a zstd archive, and of the dictionary of an xz archive. A
// decoder needs that much memory.
const maxWindow = 128 << 20

var (
	errArchiveCompression = fmt.Errorf("archive is compressed with lz4, and only gzip, zstd, xz and bzip2 are supported: %w", errdefs.ErrNotImplemented)
	errLayerCompression   = fmt.Errorf("layer is compressed with bzip2, xz or lz4, and only gzip and zstd are supported: %w", errdefs.ErrNotImplemented)
)

// detect returns the compression of data that begin with magic.
func detect(magic []byte) compression {
	for _, m := range []struct {
		prefix []byte
		is     compression
	}{
		{[]byte{0x1f, 0x8b, 0x08}, gzipFormat},
		{[]byte{0x28, 0xb5, 0x2f, 0xfd}, zstdFormat},
		{[]byte("BZh"), bzip2Format},
		{[]byte(xzMagic), xzFormat},
		{[]byte{0x04, 0x22, 0x4d, 0x18}, lz4Format},
	} {
		if bytes.HasPrefix(magic, m.prefix) {
			return m.is
		}
	}
	if len(magic) >= 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:4], []byte{0x2a, 0x4d, 0x18}) {
		return zstdFormat // a skippable frame, which has metadata
	}
	return notCompressed
}

// IsCompressed reports whether an archive is compressed, so that Open cannot read it.
func IsCompressed(r io.ReaderAt) (bool, error) {
	magic := make([]byte, magicLength)
	n, err := r.ReadAt(magic, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return detect(magic[:n]) != notCompressed, err
}

// Decompress returns a reader of the uncompressed archive in r, which can be compressed with gzip, zstd, xz or bzip2,
// also in several parts, one after the other. Errors of r are returned unchanged. Otherwise, the error is
// ErrNotImplemented for another compression, ErrInvalidArgument for a window or a dictionary that is too large, and
// ErrDataLoss for data that cannot be decompressed.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	src := &source{r: r}
	buffered := bufio.NewReaderSize(src, 256<<10)
	magic, err := buffered.Peek(magicLength)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var d io.ReadCloser
	switch detect(magic) {
	case notCompressed:
		return io.NopCloser(buffered), nil
	case gzipFormat:
		d, err = gzip.NewReader(buffered)
	case zstdFormat:
		var z *zstd.Decoder
		if z, err = zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow)); err == nil {
			d = z.IOReadCloser()
		}
	case xzFormat:
		var x *xz.Reader
		if x, err = (xz.ReaderConfig{DictCap: minDictionary}).NewReader(newXZGuard(buffered)); err == nil {
			d = io.NopCloser(x)
		}
	case bzip2Format:
		d = io.NopCloser(bzip2.NewReader(buffered))
	case lz4Format:
		err = errArchiveCompression
	}
	if err != nil {
		return nil, src.classify(err)
	}
	return decompressor{d, src}, nil
}

// source keeps the first error of a reader, so that classify can distinguish this error from an error of the
// decompressor.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && s.err == nil {
		s.err = err
	}
	return n, err
}

// classify returns the error of the source, or err with a class.
func (s *source) classify(err error) error {
	switch {
	case s.err != nil:
		return s.err
	case errdefs.IsNotImplemented(err), errdefs.IsInvalidArgument(err):
		return err
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		return fmt.Errorf("archive has a zstd window of more than %d bytes: %w: %w", maxWindow, err, errdefs.ErrInvalidArgument)
	}
	return fmt.Errorf("decompress archive: %w: %w", err, errdefs.ErrDataLoss)
}

// decompressor adds classes to the errors of a decompressor.
type decompressor struct {
	io.ReadCloser
	src *source
}

func (d decompressor) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = d.src.classify(err)
	}
	return n, err
}
