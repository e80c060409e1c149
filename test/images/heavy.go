package images

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const (
	heavyName   = testRegistry + "heavy:1"
	heavyLayers = 7
	heavyFiles  = 36      // per layer
	heavySize   = 2 << 20 // size of each file in bytes; 504 MiB in total
)

// heavy builds an image of half a gigabyte in seven gzip layers. Like programs, its files compress
// to about half of their size.
func heavy(p *parts) (artifact, error) {
	layers := []v1.Layer{p.busybox}
	for i := range heavyLayers {
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return heavyLayer(i), nil },
			tarball.WithCompressionLevel(gzip.DefaultCompression))
		if err != nil {
			return nil, err
		}
		layers = append(layers, l)
	}
	return assemble(v1.Config{Cmd: []string{"sh"}}, layers...)
}

// heavyLayer generates the tar while it is read, so that it is never in memory as a whole.
func heavyLayer(layer int) io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		for file := range heavyFiles {
			h := tar.Header{
				Typeflag: tar.TypeReg, Mode: 0o755, Size: heavySize,
				Name: fmt.Sprintf("opt/heavy/%d/program-%02d", layer, file),
			}
			if err := tw.WriteHeader(&h); err != nil {
				w.CloseWithError(err)
				return
			}
			if _, err := tw.Write(program(uint64(layer), uint64(file))); err != nil {
				w.CloseWithError(err)
				return
			}
		}
		w.CloseWithError(tw.Close())
	}()
	return r
}

// program returns bytes that compress like machine code: random runs between copies of preceding bytes.
func program(layer, file uint64) []byte {
	rnd := rand.New(rand.NewPCG(layer+1, file+1))
	b := make([]byte, 0, heavySize+64)
	for len(b) < heavySize {
		for range 1 + rnd.IntN(16) {
			b = append(b, byte(rnd.Uint32()))
		}
		back := min(len(b), 1+rnd.IntN(16<<10))
		n := min(back, 4+rnd.IntN(28))
		start := len(b) - back
		b = append(b, b[start:start+n]...)
	}
	return b[:heavySize]
}
