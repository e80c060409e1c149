package archive

import (
	"bytes"
	"errors"
	"io"
	"math/rand"
	"testing"
	"testing/iotest"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// xzCompress compresses data.
func xzCompress(tb testing.TB, c xz.WriterConfig, data []byte) []byte {
	tb.Helper()
	var b bytes.Buffer
	w, err := c.NewWriter(&b)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// mixed returns data in which only a part is compressible, so that an xz stream has chunks of both kinds.
func mixed() []byte {
	random := make([]byte, 80<<10)
	r := rand.New(rand.NewSource(1)) //nolint:gosec // the test must be repeatable
	r.Read(random)
	return bytes.Join([][]byte{random, bytes.Repeat([]byte("text "), 20_000), random[:1234]}, nil)
}

func decompress(r io.Reader) ([]byte, error) {
	d, err := Decompress(r)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return io.ReadAll(d)
}

func TestDecompressXZ(t *testing.T) {
	data := mixed()
	for name, c := range map[string]xz.WriterConfig{
		"default": {}, "CRC32": {CheckSum: xz.CRC32}, "SHA-256": {CheckSum: xz.SHA256}, "no check": {NoCheckSum: true},
		"blocks": {BlockSize: 50_003}, "largest dictionary": {DictCap: maxWindow},
	} {
		compressed := xzCompress(t, c, data)
		for how, r := range map[string]io.Reader{"whole": bytes.NewReader(compressed), "bytes": iotest.OneByteReader(bytes.NewReader(compressed))} {
			if got, err := decompress(r); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s, %s: got %d bytes, %v", name, how, len(got), err)
			}
		}
		lengths := []int{13, 20, len(compressed) / 2}
		for n := 1; n <= 40; n++ { // the last block, the index and the footer
			lengths = append(lengths, len(compressed)-n)
		}
		for _, n := range lengths {
			if _, err := decompress(bytes.NewReader(compressed[:n])); !errdefs.IsDataLoss(err) {
				t.Errorf("%s, truncated to %d bytes: got %v", name, n, err)
			}
		}
	}
	if got, err := decompress(bytes.NewReader(xzCompress(t, xz.WriterConfig{}, nil))); err != nil || len(got) > 0 {
		t.Errorf("no data: got %d bytes, %v", len(got), err)
	}
}

// TestDecompressXZStreams decompresses files with several streams and zeros between them, as xz(1) does.
func TestDecompressXZStreams(t *testing.T) {
	data := mixed()
	first := xzCompress(t, xz.WriterConfig{BlockSize: 300, CheckSum: xz.SHA256, DictCap: 1 << 16}, data)
	second := xzCompress(t, xz.WriterConfig{DictCap: 1 << 16}, []byte("second"))
	empty, zeros := xzCompress(t, xz.WriterConfig{}, nil), make([]byte, 8)
	for name, c := range map[string]struct {
		parts [][]byte
		want  []byte
	}{
		"two":               {[][]byte{first, second}, append(bytes.Clone(data), "second"...)},
		"zeros between":     {[][]byte{second, zeros, second}, []byte("secondsecond")},
		"zeros at the end":  {[][]byte{second, zeros}, []byte("second")},
		"empty streams":     {[][]byte{empty, empty, zeros, second, empty}, []byte("second")},
		"one after another": {[][]byte{second, first, second}, bytes.Join([][]byte{[]byte("second"), data, []byte("second")}, nil)},
	} {
		compressed := bytes.Join(c.parts, nil)
		for how, r := range map[string]io.Reader{"whole": bytes.NewReader(compressed), "bytes": iotest.OneByteReader(bytes.NewReader(compressed))} {
			if got, err := decompress(r); err != nil || !bytes.Equal(got, c.want) {
				t.Errorf("%s, %s: got %d bytes, %v; want %d bytes", name, how, len(got), err, len(c.want))
			}
		}
	}
	large := xzCompress(t, xz.WriterConfig{DictCap: 2 * maxWindow}, []byte("x"))
	if _, err := decompress(bytes.NewReader(bytes.Join([][]byte{first, zeros, large}, nil))); !errdefs.IsInvalidArgument(err) {
		t.Errorf("large dictionary in a later stream: got %v", err)
	}
	two := bytes.Join([][]byte{second, second}, nil)
	for n := len(second) + 1; n < len(two); n++ {
		if _, err := decompress(bytes.NewReader(two[:n])); !errdefs.IsDataLoss(err) {
			t.Errorf("second stream truncated to %d bytes: got %v", n-len(second), err)
		}
	}
	for name, tail := range map[string][]byte{"text": []byte("text that is no stream"), "three zeros": zeros[:3]} {
		if _, err := decompress(bytes.NewReader(append(bytes.Clone(second), tail...))); !errdefs.IsDataLoss(err) {
			t.Errorf("%s behind the stream: got %v", name, err)
		}
	}
}

// TestDecompressParts checks that all members, frames and streams of an archive are read.
func TestDecompressParts(t *testing.T) {
	for name, compress := range map[string]func(io.Writer) (io.WriteCloser, error){
		"gzip": func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
		"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
	} {
		var b bytes.Buffer
		for _, part := range []string{"first ", "", "second"} {
			w, err := compress(&b)
			if err == nil {
				_, err = io.WriteString(w, part)
			}
			if err == nil {
				err = w.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if got, err := decompress(&b); err != nil || string(got) != "first second" {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}

// TestDecompressXZRefuses checks that a large dictionary is refused before the decoder allocates it, also in a later
// block.
func TestDecompressXZRefuses(t *testing.T) {
	small, large := xzCompress(t, xz.WriterConfig{BlockSize: 1000}, mixed()[:1500]), xzCompress(t, xz.WriterConfig{DictCap: 2 * maxWindow}, []byte("x"))
	if _, err := decompress(bytes.NewReader(large)); !errdefs.IsInvalidArgument(err) {
		t.Errorf("large dictionary: got %v", err)
	}
	// The header of the second block is replaced. A guard that miscounts the chunks accepts the stream.
	first := bytes.Index(small, []byte{lzma2, 1})
	second := first + 2 + bytes.Index(small[first+2:], []byte{lzma2, 1})
	if second < first+1000 {
		t.Fatalf("second block at %d, first at %d", second, first)
	}
	small[second+2] = 40 // 4 GiB
	if _, err := decompress(bytes.NewReader(small)); !errdefs.IsInvalidArgument(err) {
		t.Errorf("large dictionary of the second block: got %v", err)
	}
	small[second+2] = 41
	if _, err := decompress(bytes.NewReader(small)); !errdefs.IsDataLoss(err) {
		t.Errorf("reserved size of the dictionary: got %v", err)
	}
	small[second] = 3 // the delta filter
	if _, err := decompress(bytes.NewReader(small)); !errdefs.IsNotImplemented(err) {
		t.Errorf("other filter: got %v", err)
	}
	broken := errors.New("broken")
	if _, err := decompress(io.MultiReader(bytes.NewReader(small[:100]), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("error of the source: got %v", err)
	}
}

// TestDecompressBzip2 decompresses the output of `printf archive | bzip2`.
func TestDecompressBzip2(t *testing.T) {
	const compressed = "BZh91AY&SY\x24\x5f\x51\xb6\x00\x00\x00\x01\x80\x2a\x60\x11\x00\x20\x00\x31\x0c\x01\x06\x9b\x42\x23\x09\x45\xdc\x91\x4e\x14\x24\x09\x17\xd4\x6d\x80"
	if got, err := decompress(bytes.NewReader([]byte(compressed))); err != nil || string(got) != "archive" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := decompress(bytes.NewReader([]byte(compressed + compressed))); err != nil || string(got) != "archivearchive" {
		t.Errorf("two streams: got %q, %v", got, err)
	}
	if _, err := decompress(bytes.NewReader([]byte(compressed[:20]))); !errdefs.IsDataLoss(err) {
		t.Errorf("truncated: got %v", err)
	}
}

// FuzzXZ checks that the guard does not change a stream that it accepts.
func FuzzXZ(f *testing.F) {
	f.Add(xzCompress(f, xz.WriterConfig{}, []byte("text text text")))
	f.Add(xzCompress(f, xz.WriterConfig{BlockSize: 500}, mixed()[79<<10:81<<10]))
	f.Add(bytes.Repeat(xzCompress(f, xz.WriterConfig{}, []byte("text")), 2))
	f.Fuzz(func(t *testing.T, data []byte) {
		guarded, err := io.ReadAll(io.LimitReader(newXZGuard(bytes.NewReader(data)), 1<<20))
		if err == nil && !bytes.Equal(guarded, data) {
			t.Errorf("the guard has changed the stream")
		}
	})
}
