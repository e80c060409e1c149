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

// compress returns a zstd stream with a window of this size in its header.
func compress(t *testing.T, content []byte, window int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	for len(content) > 0 { // in parts, or the writer would leave the window out
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

// skippable is a frame that decoders skip.
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
		"usual":                         {compress(t, tar, 8<<20), nil},
		"large":                         {large, nil},
		"after frames that are skipped": {append(append(skippable(0), skippable(200)...), large...), nil},
		"of the second frame":           {two, nil},
		"too large":                     {compress(t, tar, 256<<20), errdefs.IsInvalidArgument},
	} {
		limits := testLimits
		limits.windows = semaphore.NewWeighted(maxWindow)
		_, _, err := unpackBytes(t, c.blob, limits)
		if c.is == nil && err != nil || c.is != nil && !c.is(err) {
			t.Errorf("%s: %v", name, err)
		}
		if !limits.windows.TryAcquire(maxWindow) {
			t.Errorf("%s: memory is not given back", name)
		}
	}
}

// TestZstdWindowsAreBounded unpacks a layer while others have all the memory: it
// waits, and the wait counts as progress.
func TestZstdWindowsAreBounded(t *testing.T) {
	needRoot(t)
	limits := testLimits
	limits.windows = semaphore.NewWeighted(maxWindow)
	if !limits.windows.TryAcquire(maxWindow) {
		t.Fatal("no memory")
	}
	blob := compress(t, imagetest.Tar(t, imagetest.File("f", "content")), 1<<20)
	start := func(read io.Reader, moved chan struct{}) (done chan error) {
		dir := filepath.Join(t.TempDir(), "layer")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		done = make(chan error, 1)
		go func() {
			_, err := unpack(context.Background(), dir, Source{
				Blob: Blob{Digest: digest.FromBytes(blob)}, Reader: read,
				Progress: func(int) {
					select {
					case moved <- struct{}{}:
					default:
					}
				},
				Abort: func(error) {},
			}, limits)
			done <- err
		}()
		return done
	}
	moved := make(chan struct{}, 1)
	done := start(bytes.NewReader(blob), moved)
	select {
	case <-moved:
	case err := <-done:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("does not move")
	}
	limits.windows.Release(maxWindow)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
