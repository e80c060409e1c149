package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/image/internal/imagetest"
)

// TestUnpackEscapes unpacks tars that try to write outside of the layer.
func TestUnpackEscapes(t *testing.T) {
	needRoot(t)
	outside := t.TempDir()
	rel := strings.Repeat("../", 20) + outside
	w := func(name string) imagetest.Entry { return imagetest.File(name, "evil") }
	for name, entries := range map[string][]imagetest.Entry{
		"dot dot":                      {w(rel + "/f")},
		"dot dot inside":               {w("a/../" + rel + "/f")},
		"absolute":                     {w(outside + "/f")},
		"through an absolute link":     {imagetest.Symlink("l", outside), w("l/f")},
		"through a relative link":      {imagetest.Symlink("l", rel), w("l/f")},
		"through a chain of links":     {imagetest.Symlink("a", ".."), imagetest.Symlink("b", "a/a/a"), imagetest.Symlink("l", "b/"+rel), w("l/f")},
		"through a link to root":       {imagetest.Symlink("l", "/"), w("l" + outside + "/f")},
		"over a link":                  {imagetest.Symlink("f", outside+"/f"), w("f")},
		"hard link out":                {imagetest.HardLink("h", outside+"/kept"), w("h")},
		"hard link out by dots":        {imagetest.HardLink("h", rel+"/kept"), w("h")},
		"hard link through a link":     {imagetest.Symlink("l", outside), imagetest.HardLink("h", "l/kept"), w("h")},
		"hard link to a link":          {imagetest.Symlink("l", outside+"/kept"), imagetest.HardLink("h", "l"), w("h")},
		"directory through a link":     {imagetest.Symlink("l", outside), imagetest.DirMode("l", 7, 0o777)},
		"whiteout of dot dot":          {w(".wh..")},
		"whiteout of the parent":       {w("a/.wh...")},
		"whiteout through a link":      {imagetest.Symlink("l", outside), w("l/.wh.kept")},
		"opaque through a link":        {imagetest.Symlink("l", outside), w("l/.wh..wh..opq")},
		"device through a link":        {imagetest.Symlink("l", outside), {Header: tar.Header{Typeflag: tar.TypeChar, Name: "l/f", Mode: 0o666, Devmajor: 1, Devminor: 3}}},
		"proc of the unpacker":         {w("proc/self/root" + outside + "/f")},
		"link to proc of the unpacker": {imagetest.Symlink("l", "/proc/self/root"+outside), w("l/f")},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(outside, "kept"), []byte("kept"), 0o600); err != nil {
				t.Fatal(err)
			}
			before := lstat(t, outside)
			_, _, err := unpackBytes(t, imagetest.Tar(t, entries...), testLimits)
			if err != nil && !errdefs.IsInvalidArgument(err) {
				t.Errorf("got error of another class: %v", err)
			}
			if b, err := os.ReadFile(filepath.Join(outside, "kept")); string(b) != "kept" || err != nil {
				t.Errorf("file outside has changed: %q, %v", b, err)
			}
			if st := lstat(t, outside, "kept"); st.Nlink != 1 {
				t.Error("file outside has another link")
			}
			if after := lstat(t, outside); after.Mtim != before.Mtim || after.Mode != before.Mode || after.Uid != before.Uid {
				t.Error("directory outside has changed")
			}
		})
	}
}

func TestUnpackLimits(t *testing.T) {
	many := make([]imagetest.Entry, 30)
	for i := range many {
		many[i] = imagetest.File(strings.Repeat("x", i+1), "")
	}
	deep := imagetest.File(strings.Repeat("d/", 30)+"f", "")
	big := imagetest.File("big", strings.Repeat("b", 100<<10))
	owner := imagetest.File("f", "")
	owner.Uid = -1
	var links []imagetest.Entry
	for i := range 300 {
		links = append(links, imagetest.Symlink(fmt.Sprint("l", i), strings.Repeat("x", 4000)))
	}
	var withXattrs []imagetest.Entry // directories, whose attributes stay in memory
	for i := range 400 {
		e := imagetest.Dir(fmt.Sprint("d", i))
		e.PAXRecords = map[string]string{xattrRecord + "user.note": strings.Repeat("x", 3000)} // ext4 accepts about 4000
		withXattrs = append(withXattrs, e)
	}
	var implied []imagetest.Entry // the names of all parents are 20 times as long as the names of the files
	for i := range 1000 {
		implied = append(implied, imagetest.File(fmt.Sprintf("%d/%sf", i, strings.Repeat(strings.Repeat("d", 99)+"/", 20)), ""))
	}
	for name, c := range map[string]struct {
		entries []imagetest.Entry
		limits  Limits
		is      func(error) bool
		text    string // in the error
	}{
		"entries":             {many, Limits{Entries: 29, Bytes: 1 << 20}, errdefs.IsResourceExhausted, "29 entries"},
		"directories":         {[]imagetest.Entry{deep}, Limits{Entries: 29, Bytes: 1 << 20}, errdefs.IsResourceExhausted, "29 directories"},
		"bytes":               {[]imagetest.Entry{big}, Limits{Entries: 29, Bytes: 64 << 10}, errdefs.IsResourceExhausted, "bytes when decompressed"},
		"owner":               {[]imagetest.Entry{owner}, testLimits, errdefs.IsInvalidArgument, "owner"},
		"names":               {links, Limits{Entries: 300, Bytes: 64 << 20}, errdefs.IsResourceExhausted, "bytes of names:"},
		"attributes":          {withXattrs, Limits{Entries: 400, Bytes: 64 << 20}, errdefs.IsResourceExhausted, "bytes of names:"},
		"implied names":       {implied, Limits{Entries: 100_000, Bytes: 64 << 20}, errdefs.IsResourceExhausted, "directories without an entry"},
		"missing link target": {[]imagetest.Entry{imagetest.HardLink("h", "none")}, testLimits, errdefs.IsInvalidArgument, ""},
	} {
		t.Run(name, func(t *testing.T) {
			layer := imagetest.Gzip(t, imagetest.Tar(t, c.entries...))
			if _, _, err := unpackBytes(t, layer.Blob, c.limits); !c.is(err) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want an error with %q", err, c.text)
			}
		})
	}
}

func TestUnpackCorrupt(t *testing.T) {
	good := imagetest.Files(t, imagetest.File("f", strings.Repeat("content ", 1000)))
	flipped := bytes.Clone(good.Blob)
	flipped[len(flipped)-6] ^= 1
	for name, blob := range map[string][]byte{
		"truncated": good.Blob[:len(good.Blob)-20], "checksum": flipped, "trailing": append(bytes.Clone(good.Blob), "garbage"...),
		"xz": append([]byte{0xfd, '7', 'z', 'X', 'Z', 0}, make([]byte, 100)...), "not a tar": bytes.Repeat([]byte("no tar "), 200),
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := unpackBytes(t, blob, testLimits); err == nil {
				t.Error("got no error")
			} else if !hasClass(err) {
				t.Errorf("error has no class: %v", err)
			}
		})
	}
}

// TestUnpackSourceError checks that unpack returns the error of the source and not the resulting
// error of the tar, and that unpack calls Abort before it waits for the source.
func TestUnpackSourceError(t *testing.T) {
	needRoot(t)
	blob := imagetest.Tar(t, imagetest.File("f", strings.Repeat("x", 1<<20)))
	dir := t.TempDir()
	fail := unix.ECONNRESET
	_, err := unpack(t.Context(), dir, Source{
		Reader:   io.MultiReader(bytes.NewReader(blob[:1<<19]), failingReader{fail}),
		Progress: func(int) {}, Abort: func(error) {},
	}, testLimits)
	if !strings.Contains(err.Error(), fail.Error()) || errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
	r, w := io.Pipe()
	bad := append(imagetest.Tar(t, imagetest.File("../f", "")), make([]byte, 4*chunkSize)...)
	go func() { _, _ = w.Write(bad) }() // then the source waits
	_, err = unpack(t.Context(), dir, Source{
		Reader: r, Progress: func(int) {}, Abort: func(err error) { _ = w.CloseWithError(err) },
	}, testLimits)
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

// FuzzUnpack unpacks arbitrary data. Nothing outside of the directory of the layer may change.
func FuzzUnpack(f *testing.F) {
	f.Add(imagetest.Tar(f, imagetest.Symlink("l", "../outside"), imagetest.File("l/f", "x"), imagetest.HardLink("h", "l/kept")))
	f.Add(imagetest.Tar(f, imagetest.Dir("a"), imagetest.File("a/.wh..wh..opq", ""), imagetest.File(".wh.a", ""), imagetest.File("a/b", "x")))
	f.Add(imagetest.Files(f, imagetest.File("../../outside/f", "x")).Blob)
	f.Fuzz(func(t *testing.T, blob []byte) {
		needRoot(t)
		parent := t.TempDir()
		outside := filepath.Join(parent, "outside")
		if err := os.Mkdir(outside, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(outside, "kept"), []byte("kept"), 0o644); err != nil {
			t.Fatal(err)
		}
		before := lstat(t, outside)
		dir := filepath.Join(parent, "in")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := unpack(t.Context(), dir, Source{
			Reader: bytes.NewReader(blob), Progress: func(int) {}, Abort: func(error) {},
		}, Limits{Entries: 100, Bytes: 1 << 20})
		if err != nil && !hasClass(err) {
			t.Errorf("error has no class: %v", err)
		}
		if after := lstat(t, outside); after != before && (after.Mtim != before.Mtim || after.Mode != before.Mode || after.Ctim != before.Ctim) {
			t.Errorf("directory outside has changed")
		}
		if st := lstat(t, outside, "kept"); st.Size != 4 || st.Nlink != 1 {
			t.Errorf("file outside has changed")
		}
		entries, _ := os.ReadDir(parent)
		if len(entries) != 2 {
			t.Errorf("directory beside the layer has new entries: %v", entries)
		}
	})
}

// TestErrorClasses has error numbers of system calls during unpacking, with the class that they get.
func TestErrorClasses(t *testing.T) {
	for number, class := range map[unix.Errno]error{
		unix.ENAMETOOLONG: errdefs.ErrInvalidArgument,
		unix.ENOSPC:       errdefs.ErrResourceExhausted,
		unix.EDQUOT:       errdefs.ErrResourceExhausted,
		unix.EIO:          nil,
		unix.EROFS:        nil,
		unix.EMFILE:       nil,
	} {
		err := &os.PathError{Op: "open", Path: "/file", Err: number}
		got := applyError(t.Context(), err)
		if class != nil && !errors.Is(got, class) || class == nil && hasClass(got) || !errors.Is(got, number) {
			t.Errorf("%v: got %v, want the class %v", number, got, class)
		}
	}
}
