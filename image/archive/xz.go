package archive

import (
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
)

// xzMagic begins each xz stream.
const xzMagic = "\xfd7zXZ\x00"

// minDictionary is the dictionary in bytes that the xz reader has at least. It is the minimum of the format, so that
// the reader uses the size that the archive states.
const minDictionary = 4096

// Sizes in bytes of parts of an xz stream.
const (
	xzStreamHeader = 12
	xzStreamFooter = 12
	xzIndexCheck   = 4
	xzAlignment    = 4 // of blocks, of the index, and of the zeros between streams
)

// maxIndexRecords is far above the number of blocks of any archive.
const maxIndexRecords = 1 << 40

// Values of the header of a block.
const (
	lzma2             = 0x21 // the ID of the LZMA2 filter
	maxDictionaryBits = 40   // of its property; larger values are reserved
)

var errXZMalformed = fmt.Errorf("xz stream is malformed: %w", errdefs.ErrDataLoss)

// xzGuard passes one or several xz streams on, and ends with an error before a block whose dictionary is larger than
// maxWindow. The xz reader has no limit: a few bytes of an archive could make it allocate 4 GiB. xzGuard follows the
// structure of the streams, which lengths in the headers of the chunks describe, and decompresses nothing.
type xzGuard struct {
	r   io.Reader
	err error

	skip  int64        // bytes before the next header
	head  []byte       // the bytes of the header that were read so far
	want  int          // the length of the header in bytes
	parse func() error // parses head, and prepares the next header
	// between is true after the end of a stream. Another stream can follow, or the end of the file.
	between bool

	check int64 // the size of the check after each block
	block int64 // the bytes of the compressed data of the current block

	index   int64  // the bytes of the index
	number  uint64 // the value of the number in the index that is read
	shift   int    // the bits of number that were read
	numbers int64  // the numbers before the end of the index, or -1 before the number of records is known
}

func newXZGuard(r io.Reader) *xzGuard {
	g := &xzGuard{r: r}
	g.expect(xzStreamHeader, g.streamHeader)
	return g
}

// Read passes on the bytes of the streams up to the first header that is refused.
func (g *xzGuard) Read(p []byte) (int, error) {
	if g.err != nil {
		return 0, g.err
	}
	n, err := g.r.Read(p)
	if g.err = g.follow(p[:n]); g.err != nil {
		return 0, g.err
	}
	if errors.Is(err, io.EOF) && (!g.between || g.skip > 0 || len(g.head) > 0) {
		err = io.ErrUnexpectedEOF // the xz reader takes some ends within a header for the end of the stream
	}
	return n, err
}

// expect prepares the next header, which has n bytes.
func (g *xzGuard) expect(n int, parse func() error) {
	g.head, g.want, g.parse, g.between = g.head[:0], n, parse, false
}

// follow parses the headers in b.
func (g *xzGuard) follow(b []byte) error {
	for len(b) > 0 {
		if n := min(g.skip, int64(len(b))); n > 0 {
			b, g.skip = b[n:], g.skip-n
			continue
		}
		n := min(g.want-len(g.head), len(b))
		g.head = append(g.head, b[:n]...)
		b = b[n:]
		if len(g.head) == g.want {
			if err := g.parse(); err != nil {
				return err
			}
		}
	}
	return nil
}

// xzCheckSizes are the sizes of the checks in bytes by a third of the type, rounded up (section 2.1.1.2 of the format).
var xzCheckSizes = [...]int64{0, 4, 8, 16, 32, 64}

func (g *xzGuard) streamHeader() error {
	if string(g.head[:len(xzMagic)]) != xzMagic {
		return errXZMalformed
	}
	g.check = xzCheckSizes[(g.head[7]&0x0f+2)/3]
	g.expect(1, g.blockSize)
	return nil
}

// blockSize parses the size of a block header. The size 0 begins the index, which is behind the last block.
func (g *xzGuard) blockSize() error {
	if g.head[0] == 0 {
		g.index, g.number, g.shift, g.numbers = 1, 0, 0, -1
		g.expect(1, g.indexByte)
		return nil
	}
	g.want, g.parse = (int(g.head[0])+1)*xzAlignment, g.blockHeader
	return nil
}

// blockHeader checks the filter of a block. Like the xz reader, it accepts only LZMA2 (section 3.1 of the format).
func (g *xzGuard) blockHeader() error {
	flags, rest := g.head[1], g.head[2:]
	for _, hasSize := range []byte{0x40, 0x80} { // of the compressed and of the uncompressed data
		if flags&hasSize == 0 {
			continue
		}
		for len(rest) > 0 && rest[0]&0x80 != 0 { // a number of several bytes
			rest = rest[1:]
		}
		rest = rest[min(1, len(rest)):]
	}
	if flags&0x03 != 0 || len(rest) < 3 || rest[0] != lzma2 || rest[1] != 1 {
		return fmt.Errorf("xz stream has a filter other than LZMA2: %w", errdefs.ErrNotImplemented)
	}
	switch size := dictionarySize(rest[2]); {
	case rest[2] > maxDictionaryBits:
		return errXZMalformed
	case size > maxWindow:
		return fmt.Errorf("archive has an xz dictionary of %d bytes, at most %d are allowed: %w", size, maxWindow, errdefs.ErrInvalidArgument)
	}
	g.block = 0
	g.expect(1, g.chunk)
	return nil
}

// dictionarySize returns the size of a dictionary in bytes (section 5.3.1 of the format).
func dictionarySize(bits byte) int64 {
	return int64(2|bits&1) << (bits/2 + 11)
}

// chunk parses the first byte of a chunk of LZMA2.
func (g *xzGuard) chunk() error {
	switch control := g.head[0]; {
	case control == 0: // the end of the block
		g.block++
		g.skip = -g.block&(xzAlignment-1) + g.check
		g.expect(1, g.blockSize)
	case control < 3:
		g.want, g.parse = 3, g.uncompressedChunk
	case control >= 0x80:
		g.want, g.parse = 5, g.compressedChunk
	default:
		return errXZMalformed
	}
	return nil
}

func (g *xzGuard) uncompressedChunk() error {
	g.endChunk(int64(g.head[1])<<8 + int64(g.head[2]) + 1)
	return nil
}

func (g *xzGuard) compressedChunk() error {
	size := int64(g.head[3])<<8 + int64(g.head[4]) + 1
	if g.head[0] >= 0xc0 {
		size++ // the properties
	}
	g.endChunk(size)
	return nil
}

// endChunk skips the content of a chunk.
func (g *xzGuard) endChunk(size int64) {
	g.block += int64(len(g.head)) + size
	g.skip = size
	g.expect(1, g.chunk)
}

// indexByte parses a byte of the index: the number of records, and two numbers for each record (section 4 of the
// format).
func (g *xzGuard) indexByte() error {
	b := g.head[0]
	g.index++
	g.number |= uint64(b&0x7f) << g.shift
	g.shift += 7
	switch {
	case b&0x80 != 0: // more bytes of the number follow
		if g.shift > 56 {
			return errXZMalformed
		}
		g.expect(1, g.indexByte)
		return nil
	case g.numbers >= 0:
		g.numbers--
	case g.number > maxIndexRecords:
		return errXZMalformed
	default:
		g.numbers = 2 * int64(g.number)
	}
	g.number, g.shift = 0, 0
	if g.numbers > 0 {
		g.expect(1, g.indexByte)
		return nil
	}
	g.skip = -g.index&(xzAlignment-1) + xzIndexCheck + xzStreamFooter
	g.expectStream()
	return nil
}

// expectStream prepares the header of another stream, or zeros before it (section 2.2 of the format).
func (g *xzGuard) expectStream() {
	g.expect(xzAlignment, g.streamStart)
	g.between = true
}

// streamStart parses the first bytes behind a stream.
func (g *xzGuard) streamStart() error {
	if string(g.head) == "\x00\x00\x00\x00" {
		g.expectStream()
		return nil
	}
	g.want, g.parse = xzStreamHeader, g.streamHeader
	return nil
}
