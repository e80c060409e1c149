package layer

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"

	"github.com/criserver/criserver/image/internal/imagetest"
)

// compress returns a zstd stream whose header has a window size.
func compress(t *testing.T, content []byte, window int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	for len(content) > 0 { // in parts, because the header of a single segment has no window size
		n := min(len(content), 1000)
		if _, err := w.Write(content[:n]); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		content = content[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// skippable returns a skippable frame of n bytes.
func skippable(n byte) []byte {
	return append([]byte{0x50, 0x2a, 0x4d, 0x18, n, 0, 0, 0}, make([]byte, n)...)
}

func TestZstdWindows(t *testing.T) {
	tar := imagetest.Tar(t, imagetest.File("f", strings.Repeat("content ", 1000)))
	large := compress(t, tar, 128<<20)
	two := append(compress(t, tar[:600], 1<<20), compress(t, tar[600:], 8<<20)...)
	for name, c := range map[string]struct {
		blob []byte
		is   func(error) bool
	}{
		"minimum":                {compress(t, tar, 8<<20), nil},
		"large":                  {large, nil},
		"after skippable frames": {append(append(skippable(0), skippable(200)...), large...), nil},
		"larger in second frame": {two, nil},
		"too large":              {compress(t, tar, 256<<20), errdefs.IsInvalidArgument},
	} {
		limits := testLimits
		limits.windows = semaphore.NewWeighted(maxWindow)
		_, _, err := unpackBytes(t, c.blob, limits)
		if c.is == nil && err != nil || c.is != nil && !c.is(err) {
			t.Errorf("%s: %v", name, err)
		}
		if !limits.windows.TryAcquire(maxWindow) {
			t.Errorf("%s: memory was not released", name)
		}
	}
}

// TestZstdWindowLimit unpacks a layer while all memory for windows is in use. unpack must wait and
// report progress. Progress of one byte shows that unpack waits: the first chunk of the tar is longer.
func TestZstdWindowLimit(t *testing.T) {
	needRoot(t)
	limits := testLimits
	limits.windows = semaphore.NewWeighted(maxWindow)
	if !limits.windows.TryAcquire(maxWindow) {
		t.Fatal("acquire all memory: not available")
	}
	blob := compress(t, imagetest.Tar(t, imagetest.File("f", "content")), 1<<20)
	start := func(read io.Reader, progress chan int) (done chan error) {
		dir := filepath.Join(t.TempDir(), "layer")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		done = make(chan error, 1)
		go func() {
			_, err := unpack(context.Background(), dir, Source{
				Blob: Blob{Digest: digest.FromBytes(blob)}, Reader: read,
				Progress: func(n int) {
					select {
					case progress <- n:
					default:
					}
				},
				Abort: func(error) {},
			}, limits)
			done <- err
		}()
		return done
	}
	progress := make(chan int, 1)
	done := start(bytes.NewReader(blob), progress)
	select {
	case n := <-progress:
		if n != 1 {
			t.Fatalf("unpack did not wait for memory: it unpacked %d bytes", n)
		}
	case err := <-done:
		t.Fatalf("unpack did not wait for memory: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("unpack reports no progress while it waits")
	}
	limits.windows.Release(maxWindow)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
