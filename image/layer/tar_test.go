package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/image/internal/imagetest"
)

// unpackNew unpacks a blob into a new directory.
func unpackNew(tb testing.TB, blob []byte) (*Layer, error) {
	tb.Helper()
	dir := tb.TempDir()
	files := filepath.Join(dir, filesDir)
	if err := os.Mkdir(files, 0o755); err != nil {
		tb.Fatal(err)
	}
	l, err := unpack(tb.Context(), files, Source{Reader: bytes.NewReader(blob), Progress: func(int) {}, Abort: func(error) {}},
		Limits{Entries: 1000, Bytes: 1 << 20})
	l.dir = dir
	return &l, err
}

func writeTar(tb testing.TB, l *Layer) []byte {
	tb.Helper()
	var b bytes.Buffer
	if err := l.WriteTar(tb.Context(), &b); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// checkWriteTar checks that the tar of a layer unpacks to the same layer, and that its tar is the same again.
func checkWriteTar(tb testing.TB, l *Layer) {
	tb.Helper()
	data := writeTar(tb, l)
	again, err := unpackNew(tb, data)
	if err != nil {
		tb.Fatalf("unpack the tar: %v", err)
	}
	hash := func(l *Layer) digest.Digest {
		d, err := hashTree(tb.Context(), treeHash{sum: sha256.New(), ignoreWhiteoutTimes: true}, l.Dir())
		if err != nil {
			tb.Fatal(err)
		}
		return d
	}
	if hash(again) != hash(l) && !hasDeviceZero(tb, l) {
		tb.Error("files differ")
	}
	slices.Sort(again.Implied)
	slices.Sort(l.Implied)
	if !slices.Equal(again.Implied, l.Implied) || again.OpaqueRoot != l.OpaqueRoot {
		tb.Errorf("got implied directories %q and opaque root %t, want %q and %t", again.Implied, again.OpaqueRoot, l.Implied, l.OpaqueRoot)
	}
	if !bytes.Equal(writeTar(tb, again), data) {
		tb.Error("the tar of the layer that was unpacked from the tar differs")
	}
}

// hasDeviceZero reports whether a layer has a device 0/0 that is not from the entry of a whiteout. Overlay
// takes it for a whiteout, and the tar has the entry of a whiteout for it, so its owner and mode are not in
// the tar.
func hasDeviceZero(tb testing.TB, l *Layer) bool {
	tb.Helper()
	found := false
	err := filepath.WalkDir(l.Dir(), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st := lstat(tb, path)
		found = found || st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 && (st.Mode&0o7777 != 0 || st.Uid != 0 || st.Gid != 0)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return found
}

func TestWriteTar(t *testing.T) {
	needRoot(t)
	for name, entries := range map[string][]imagetest.Entry{
		"empty":                         {},
		"root":                          {imagetest.DirMode(".", 3, 0o700)},
		"opaque root":                   {imagetest.File(".wh..wh..opq", ""), imagetest.File("a", "a")},
		"files":                         {imagetest.Dir("b"), imagetest.File("b/f", "1"), imagetest.File("a", "2"), imagetest.File("empty", "")},
		"implied directories":           {imagetest.File("a/b/c", "c"), imagetest.Dir("a/d"), imagetest.File("a/d/e", "e")},
		"opaque directory":              {imagetest.Dir("a"), imagetest.File("a/.wh..wh..opq", ""), imagetest.File("a/f", "f")},
		"opaque implied directory":      {imagetest.File("a/.wh..wh..opq", "")},
		"whiteout of a directory below": {imagetest.File(".wh.a", ""), imagetest.File("a/f", "f")},
		"whiteouts":                     {imagetest.File("a/.wh.b", ""), imagetest.File(".wh.c", "")},
		"hard links":                    {imagetest.File("z", "z"), imagetest.HardLink("a", "z"), imagetest.Dir("d"), imagetest.HardLink("d/m", "a")},
		"hard link to a symbolic link":  {imagetest.Symlink("z", "none"), imagetest.HardLink("a", "z")},
		"links":                         {imagetest.Symlink("l", "../../etc/passwd"), imagetest.Symlink("d", "/d")},
		"devices":                       {imagetest.Device("c", tar.TypeChar, 1, 3), imagetest.Device("b", tar.TypeBlock, 259, 1<<10), imagetest.Device("zero", tar.TypeChar, 0, 0)},
		"replaced entries":              {imagetest.File("a/b", "b"), imagetest.Dir("a/b"), imagetest.File("a/b/c", "c")},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := unpackNew(t, imagetest.Tar(t, entries...))
			if err != nil {
				t.Fatal(err)
			}
			checkWriteTar(t, l)
		})
	}
}

// TestWriteTarRandom checks the tars of layers with random entries at few paths, so that entries often replace each
// other, or follow links.
func TestWriteTarRandom(t *testing.T) {
	needRoot(t)
	names := []string{"a", "b", "a/a", "a/b", "b/a", "a/b/c", ".", "a/.wh.b", ".wh.a", "a/.wh..wh..opq", ".wh..wh..opq", "b/.wh.a"}
	valid := 0
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		name := func() string { return names[rnd.IntN(len(names))] }
		var entries []imagetest.Entry
		for range rnd.IntN(8) {
			var e imagetest.Entry
			switch rnd.IntN(6) {
			case 0:
				e = imagetest.Symlink(name(), name())
			case 1:
				e = imagetest.HardLink(name(), name())
			case 2, 3:
				e = imagetest.DirMode(name(), rnd.IntN(3), 0o700|rnd.Int64N(0o1000))
			default:
				e = imagetest.File(name(), strings.Repeat("x", rnd.IntN(3)))
			}
			e.ModTime = e.ModTime.Add(time.Duration(rnd.IntN(1e9)))
			e.Format = tar.FormatPAX
			entries = append(entries, e)
		}
		l, err := unpackNew(t, imagetest.Tar(t, entries...))
		if err != nil {
			continue
		}
		valid++
		if checkWriteTar(t, l); t.Failed() {
			for _, e := range entries {
				t.Logf("seed %d: %c %s %s", seed, e.Typeflag, e.Name, e.Linkname)
			}
			return
		}
	}
	if valid < 50 {
		t.Errorf("only %d layers are valid", valid)
	}
}

func TestWriteTarCancelled(t *testing.T) {
	needRoot(t)
	l, err := unpackNew(t, imagetest.Tar(t, imagetest.Dir("d"), imagetest.File("d/f", "f")))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.WriteTar(ctx, &bytes.Buffer{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

// FuzzWriteTar checks the tars of all layers that can be unpacked.
func FuzzWriteTar(f *testing.F) {
	f.Add(imagetest.Tar(f, imagetest.Symlink("l", "d"), imagetest.File("l/f", "x"), imagetest.HardLink("h", "l/f")))
	f.Add(imagetest.Tar(f, imagetest.Dir("a"), imagetest.File("a/.wh..wh..opq", ""), imagetest.File(".wh.a", ""), imagetest.File("a/b", "x")))
	f.Add(imagetest.Tar(f, imagetest.Device("zero", tar.TypeChar, 0, 0), imagetest.File("zero/x", ""), imagetest.DirMode(".", 1, 0o1777)))
	f.Fuzz(func(t *testing.T, blob []byte) {
		needRoot(t)
		l, err := unpackNew(t, blob)
		if err != nil {
			return
		}
		checkWriteTar(t, l)
	})
}
