package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/criserver/criserver/image/internal/imagetest"
)

// oddLayers are layers with everything that a layer can contain, in an order and with metadata that the tar of a saved
// layer does not have.
func oddLayers(tb testing.TB) []imagetest.Layer {
	tb.Helper()
	owned := func(e imagetest.Entry, uid, gid int, mode int64) imagetest.Entry {
		e.Uid, e.Gid, e.Mode, e.Uname = uid, gid, mode, "somebody"
		return e
	}
	precise := imagetest.File("usr/precise", "p")
	precise.ModTime, precise.Format = time.Unix(1577934245, 123456789), tar.FormatPAX
	attrs := owned(imagetest.File("usr/ping", "elf"), 0, 7, 0o4755)
	attrs.PAXRecords = map[string]string{
		"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"SCHILY.xattr.user.note":           "a\x00b",
	}
	dirAttrs := imagetest.DirMode("usr", 3, 0o1775)
	dirAttrs.PAXRecords = map[string]string{"SCHILY.xattr.user.dir": "d"}
	large := imagetest.File("large-ids", "x")
	large.Uid, large.Gid, large.Format = 4_000_000_000, 3_000_000_000, tar.FormatPAX
	long := strings.Repeat("long/", 40) + "ünïcode"
	lower := []imagetest.Entry{
		imagetest.DirMode(".", 0, 0o711), imagetest.File("z", "z"), dirAttrs, precise, attrs, imagetest.HardLink("usr/ping2", "usr/ping"),
		imagetest.HardLink("a-first", "z"), imagetest.Symlink("link", "/usr/ping"), large, imagetest.File(long, "deep"),
		imagetest.Device("null", tar.TypeChar, 1, 3), imagetest.Device("disk", tar.TypeBlock, 8, 300),
		owned(imagetest.Entry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "pipe", ModTime: imagetest.Time}}, 5, 6, 0o620),
		imagetest.Dir("gone"), imagetest.File("gone/f", "f"), imagetest.Dir("opaque"), imagetest.File("opaque/lower", "l"),
		imagetest.DirMode("implied", 9, 0o750), imagetest.File("implied/lower", "l"), imagetest.Dir("empty"), imagetest.File("removed", "r"),
	}
	upper := []imagetest.Entry{
		imagetest.File(".wh.gone", ""), imagetest.File(".wh.removed", ""), imagetest.Dir("opaque"), imagetest.File("opaque/upper", "u"),
		imagetest.File("opaque/.wh..wh..opq", ""), imagetest.File("implied/upper", "u"), imagetest.File("implied/.wh.lower", ""),
		imagetest.File(".wh.replaced", ""), imagetest.File("replaced/f", "f"), imagetest.HardLink("implied/hard", "implied/upper"),
	}
	return []imagetest.Layer{imagetest.Files(tb, lower...), imagetest.Zstd(tb, imagetest.Tar(tb, upper...)), imagetest.Plain(imagetest.Tar(tb))}
}

// save saves images in an archive.
func (b *bed) save(tb testing.TB, format ArchiveFormat, refs ...string) ([]byte, []SavedImage) {
	tb.Helper()
	var out bytes.Buffer
	reports := 0
	saved, err := b.Save(tb.Context(), &out, SaveRequest{Refs: refs, Format: format, Progress: func(p PullProgress) {
		if reports++; p.Bytes > p.Total || len(p.Layers) == 0 {
			tb.Errorf("got progress %+v", p)
		}
	}})
	if err != nil {
		tb.Fatalf("save: %v", err)
	}
	if reports == 0 {
		tb.Error("got no progress")
	}
	return out.Bytes(), saved
}

// TestSaveLoad saves an image, loads it in another store, and compares the layers. The image is saved again from there.
func TestSaveLoad(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	img := imagetest.Image{Layers: oddLayers(t), Config: ispec.ImageConfig{Env: []string{"A=<b>&c"}, Labels: map[string]string{"l": "v"}}, Comment: "author"}
	reg.Push("odd", "1", img)
	for _, format := range []ArchiveFormat{OCIArchive, DockerArchive} {
		t.Run(string(format), func(t *testing.T) {
			from := newBed(t, reg)
			original := from.pull(t, reg.Host+"/odd:1")
			data, saved := from.save(t, format, reg.Host+"/odd:1")
			equal(t, "saved images", len(saved), 1)
			equal(t, "id", saved[0].ID, original.ID)
			if saved[0].SavedID == original.ID {
				t.Error("the image has the same id, and the order of entries and the names of owners are not in the store")
			}
			to := newBed(t)
			loaded := to.load(t, data, "")[0].Image
			equal(t, "id", loaded.ID, saved[0].SavedID)
			equalList(t, "tags", loaded.RepoTags, original.RepoTags)
			equal(t, "environment", loaded.Config.Config.Env[0], "A=<b>&c")
			equal(t, "author", loaded.Config.Author, "author")
			compareLayers(t, from, original, to, loaded)

			// The tars of the layers are made in the same way again, so the image keeps its id.
			again, resaved := to.save(t, format, loaded.ID.String())
			equal(t, "id after the second save", resaved[0].SavedID, loaded.ID)
			equal(t, "archives are equal", bytes.Equal(data, again), true)
			equal(t, "config is unchanged", string(to.load(t, again, "")[0].Image.RawConfig), string(loaded.RawConfig))
			readWithLibrary(t, format, data, loaded)
			readWithLibrary(t, DockerArchive, data, loaded) // docker and podman also read an oci-archive as a docker-archive
			mountBoth(t, from, original, to, loaded)
		})
	}
}

// TestSaveSeveral saves images with a common layer, which the archive has once.
func TestSaveSeveral(t *testing.T) {
	b := newBed(t)
	b.load(t, imagetest.Tar(t, imagetest.OCIEntries(t,
		imagetest.Named{Names: []string{"first:1", "first:2"}, Image: app(t, "base", "1")},
		imagetest.Named{Names: []string{"second:1"}, Image: app(t, "base", "2")})...), "")
	first, err := b.Get("first:1")
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []ArchiveFormat{OCIArchive, DockerArchive} {
		data, saved := b.save(t, format, "first:1", "second:1")
		equalList(t, "names", saved[0].Names, []string{"docker.io/library/first:1"})
		// Both archives have three layers, two configs and manifest.json. The oci-archive also has two manifests and
		// two files of the layout.
		equal(t, "files in the archive", countFiles(t, data), map[ArchiveFormat]int{OCIArchive: 10, DockerArchive: 6}[format])
		to := newBed(t)
		equal(t, "loaded images", len(to.load(t, data, "")), 2)
		equal(t, "layers", to.layerCount(t), 3)
		_, saved = b.save(t, format, first.ID.String()[:20], "first:2")
		equal(t, "images", len(saved), 1)
		equalList(t, "names", saved[0].Names, first.RepoTags)
	}
	var out bytes.Buffer
	if _, err := b.Save(t.Context(), &out, SaveRequest{Refs: []string{"none:1"}, Format: OCIArchive}); !errdefs.IsNotFound(err) || out.Len() > 0 {
		t.Errorf("unknown image: got %v and %d bytes", err, out.Len())
	}
	if _, err := b.Save(t.Context(), &out, SaveRequest{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no images: got %v", err)
	}
	broken := errors.New("full")
	if _, err := b.Save(t.Context(), failingWriter{broken}, SaveRequest{Refs: []string{"first:1"}, Format: OCIArchive}); !errors.Is(err, broken) {
		t.Errorf("writer fails: got %v", err)
	}
}

// countFiles returns the number of entries of a tar.
func countFiles(tb testing.TB, data []byte) (n int) {
	tb.Helper()
	for r := tar.NewReader(bytes.NewReader(data)); ; n++ {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			return n
		} else if err != nil {
			tb.Fatal(err)
		}
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// TestSaveDuringRemoval removes an image while it is saved. The archive is complete.
func TestSaveDuringRemoval(t *testing.T) {
	b := newBed(t)
	b.load(t, imagetest.Tar(t, imagetest.OCIEntries(t, imagetest.Named{Names: []string{"a:1"}, Image: app(t, noise(1<<20), "1")})...), "")
	var out removingWriter
	out.remove = func() {
		if err := b.Remove(t.Context(), "a:1"); err != nil {
			t.Error(err)
		}
	}
	if _, err := b.Save(t.Context(), &out, SaveRequest{Refs: []string{"a:1"}, Format: OCIArchive}); err != nil {
		t.Fatal(err)
	}
	equal(t, "images", len(b.List()), 0)
	if err := b.layers.DropOlder(t.Context(), time.Now()); err != nil {
		t.Error(err)
	}
	equal(t, "layers after the save", b.layerCount(t), 0)
	b.load(t, out.Bytes(), "")
}

// removingWriter calls remove with the first write.
type removingWriter struct {
	bytes.Buffer
	remove func()
}

func (w *removingWriter) Write(p []byte) (int, error) {
	if w.remove != nil {
		w.remove()
		w.remove = nil
	}
	return w.Buffer.Write(p)
}

// TestSaveDamaged checks that a layer is not saved if one of its files changes during the save: the tar of the layer
// then has another digest, or is longer or shorter.
func TestSaveDamaged(t *testing.T) {
	for name, content := range map[string]string{
		"other": strings.Repeat("c", 1000), "longer": strings.Repeat("b", 5000), "shorter": "",
	} {
		b := newBed(t)
		img := b.load(t, imagetest.Tar(t, imagetest.OCIEntries(t, imagetest.Named{Names: []string{"a:1"}, Image: app(t, strings.Repeat("b", 1000), "1")})...), "")[0].Image
		l, _ := b.layers.Get(img.Layers[0].DiffID)
		out := &removingWriter{remove: func() {
			if err := os.WriteFile(filepath.Join(l.Dir(), "etc/b"), []byte(content), 0o644); err != nil {
				t.Error(err)
			}
		}}
		if _, err := b.Save(t.Context(), out, SaveRequest{Refs: []string{"a:1"}, Format: OCIArchive}); !errdefs.IsDataLoss(err) {
			t.Errorf("%s content: got %v, want DataLoss", name, err)
		}
	}
}
