package image

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/image/internal/imagetest"
	"github.com/criserver/criserver/internal/ids"
)

// largeImage returns an image with 7 layers of 75 MB, in files of 1 KiB to 4 MiB, which gzip
// compresses to about a third.
func largeImage(b *testing.B) imagetest.Image {
	words := make([]byte, 1<<16)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range words {
		words[i] = byte('a' + rnd.IntN(16))
	}
	var img imagetest.Image
	for l := range 7 {
		var entries []imagetest.Entry
		for total, n := 0, 0; total < 75<<20; n++ {
			size := 1 << (10 + rnd.IntN(13))
			content := make([]byte, 0, size)
			for len(content) < size {
				start := rnd.IntN(len(words) - 64)
				content = append(content, words[start:start+8+rnd.IntN(56)]...)
			}
			entries = append(entries, imagetest.File(fmt.Sprintf("usr/share/%d/%d/file%d", l, n%50, n), string(content)))
			total += size
		}
		img.Layers = append(img.Layers, imagetest.Files(b, entries...))
	}
	return img
}

func BenchmarkPull(b *testing.B) {
	reg := imagetest.NewRegistry(b)
	img := largeImage(b)
	reg.Push("large", "1", img)
	bytes := 0
	for _, l := range img.Layers {
		bytes += len(l.Blob)
	}
	bed := newBed(b, reg)
	b.SetBytes(int64(bytes))
	var used time.Duration
	for b.Loop() {
		before := cpuTime()
		bed.pull(b, reg.Host+"/large:1")
		used += cpuTime() - before
		b.StopTimer()
		if err := bed.Remove(b.Context(), reg.Host+"/large:1"); err != nil {
			b.Fatal(err)
		}
		if err := bed.bin.Empty(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	// This process also runs the registry, so the CPU time includes the registry.
	b.ReportMetric(used.Seconds()/float64(b.N), "cpu-s/op")
}

func cpuTime() time.Duration {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func BenchmarkMountRootFS(b *testing.B) {
	reg := imagetest.NewRegistry(b)
	reg.Push("three", "1", three(b))
	bed := newBed(b, reg)
	img := bed.pull(b, reg.Host+"/three:1")
	target := b.TempDir()
	for b.Loop() {
		id := ids.New()
		if _, err := bed.MountRootFS(b.Context(), img.ID, id, target); err != nil {
			b.Fatal(err)
		}
		if err := bed.UnmountRootFS(b.Context(), id); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	reg := imagetest.NewRegistry(b)
	reg.Push("three", "1", three(b))
	bed := newBed(b, reg)
	img := bed.pull(b, reg.Host+"/three:1")
	for _, ref := range []string{img.ID.String(), img.RepoTags[0], "127.0.0.1:1/none", "none"} {
		b.Run(ref, func(b *testing.B) {
			for b.Loop() {
				_, _ = bed.Get(ref)
			}
		})
	}
}
