package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/ulikunitz/xz"

	"github.com/criserver/criserver/image/internal/imagetest"
)

// load loads an archive that must be valid.
func (b *bed) load(tb testing.TB, data []byte, name string) []LoadedImage {
	tb.Helper()
	loaded, err := b.Load(tb.Context(), LoadRequest{Archive: bytes.NewReader(data), Size: int64(len(data)), Name: name})
	if err != nil {
		tb.Fatalf("load: %v", err)
	}
	for _, l := range loaded {
		if l.Err != nil {
			tb.Fatalf("load %s: %v", l.Label, l.Err)
		}
	}
	return loaded
}

// app returns an image with two layers: layer a replaces a file of the base.
func app(tb testing.TB, base, content string) imagetest.Image {
	tb.Helper()
	return imagetest.Image{Layers: []imagetest.Layer{
		imagetest.Files(tb, imagetest.Dir("etc"), imagetest.File("etc/a", "lower"), imagetest.File("etc/b", base)),
		imagetest.Zstd(tb, imagetest.Tar(tb, imagetest.File("etc/a", content))),
	}}
}

// TestLoadOCI loads two images, of which one has two tags, from an archive with each compression.
func TestLoadOCI(t *testing.T) {
	first, second := app(t, "base", "1"), app(t, "base", "2")
	first.Layers = append(first.Layers, imagetest.Plain(imagetest.Tar(t, imagetest.File("plain", "p"))))
	host := first
	host.Arch = runtime.GOARCH
	raw := imagetest.Tar(t, imagetest.OCIEntries(t,
		imagetest.Named{Names: []string{"registry.test/first:1", "registry.test/first:2"}, Image: first},
		imagetest.Named{Names: []string{"second"}, Image: second},                   // a tag only, which is no name
		imagetest.Named{Names: []string{"second:latest"}, Image: second},            // as skopeo writes it
		imagetest.Named{Image: imagetest.Index{host, {Arch: "none", Comment: "x"}}}, // an index without a name
	)...)
	for name, data := range map[string][]byte{"plain": raw, "gzip": imagetest.Gzip(t, raw).Blob, "zstd": imagetest.Zstd(t, raw).Blob, "xz": compressXZ(t, raw)} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			loaded := b.load(t, data, "")
			equal(t, "images of the archive", len(loaded), 3)
			equal(t, "images of the store", len(b.List()), 2)
			equalList(t, "names", loaded[0].Names, []string{"registry.test/first:1", "registry.test/first:2"})
			equalList(t, "names", loaded[1].Names, []string{"docker.io/library/second:latest"})
			equal(t, "the index has the image that is there already", loaded[2].Existed, true)
			img, err := b.Get("registry.test/first:2")
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "id", img.ID, first.ID())
			equalList(t, "digests", img.RepoDigests, []string{"registry.test/first@" + img.Manifest.String()})
			root, _ := b.mount(t, img)
			equal(t, "file", read(t, root, "etc/a")+read(t, root, "etc/b")+read(t, root, "plain"), "1basep")
			equal(t, "layers", b.layerCount(t), 4)
		})
	}
}

// compressXZ compresses an archive.
func compressXZ(tb testing.TB, data []byte) []byte {
	tb.Helper()
	var b bytes.Buffer
	w, err := xz.NewWriter(&b)
	if err == nil {
		_, err = w.Write(data)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// TestLoadOtherPlatform loads an archive that has the index of an image for several platforms, and only the image for
// another platform, as `ctr images export --platform` writes it.
func TestLoadOtherPlatform(t *testing.T) {
	other := imagetest.Image{Arch: "none", Layers: []imagetest.Layer{imagetest.Files(t, imagetest.File("a", "none"))}}
	host := imagetest.Image{Arch: runtime.GOARCH, Layers: []imagetest.Layer{imagetest.Files(t, imagetest.File("a", "host"))}}
	without := func(missing imagetest.Image) []byte {
		blobs := make(map[string]bool)
		for _, e := range imagetest.OCIEntries(t, imagetest.Named{Image: missing}) {
			blobs[e.Name] = strings.HasPrefix(e.Name, "blobs/")
		}
		all := imagetest.OCIEntries(t, imagetest.Named{Names: []string{"a:1"}, Image: imagetest.Index{host, other}})
		return imagetest.Tar(t, slices.DeleteFunc(all, func(e imagetest.Entry) bool { return blobs[e.Name] })...)
	}
	b := newBed(t)
	_, err := b.Load(t.Context(), LoadRequest{Archive: bytes.NewReader(without(host))})
	if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "not the image for the platform of this host") {
		t.Errorf("without the image for the host: got %v", err)
	}
	equal(t, "images", len(b.List()), 0)
	b.load(t, without(other), "")
	equal(t, "images", len(b.List()), 1)
}

// TestLoadDocker loads an archive of two images that share a layer, which the second image has as a link. One layer is
// compressed.
func TestLoadDocker(t *testing.T) {
	base := imagetest.Plain(imagetest.Tar(t, imagetest.Dir("etc"), imagetest.File("etc/b", "base")))
	first := imagetest.Image{Layers: []imagetest.Layer{base, imagetest.Plain(imagetest.Tar(t, imagetest.File("etc/a", "1")))}}
	second := imagetest.Image{Layers: []imagetest.Layer{base, imagetest.Files(t, imagetest.File("etc/a", "2")), base}}
	b := newBed(t)
	loaded := b.load(t, imagetest.Tar(t, imagetest.DockerEntries(t,
		imagetest.Named{Names: []string{"first:1", "registry.test/first:1"}, Image: first}, imagetest.Named{Image: second})...), "")
	equal(t, "images", len(loaded), 2)
	equal(t, "layers", b.layerCount(t), 3)
	img, err := b.Get("first:1")
	if err != nil {
		t.Fatal(err)
	}
	equalList(t, "tags", img.RepoTags, []string{"docker.io/library/first:1", "registry.test/first:1"})
	// The archive has no manifest, so no registry has a manifest with the digest.
	equalList(t, "digests", img.RepoDigests, nil)
	img, err = b.Get(second.ID().String())
	if err != nil {
		t.Fatal(err)
	}
	equalList(t, "tags of the image without a name", img.RepoTags, nil)
	root, _ := b.mount(t, img)
	equal(t, "files", read(t, root, "etc/a")+read(t, root, "etc/b"), "2base")

	b.restart(t)
	if _, err := b.Get(second.ID().String()); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	again := b.load(t, imagetest.Tar(t, imagetest.DockerEntries(t, imagetest.Named{Image: second})...), "second:new")
	equal(t, "image existed", again[0].Existed, true)
	if img, err := b.Get("second:new"); err != nil || img.ID != second.ID() {
		t.Errorf("image by its new name: got %s, %v", img.ID, err)
	}
}

// TestLoadExistingLayer checks that a layer in the store is not unpacked again, also if it came from another blob: the
// content of the layer in the archive is not the layer.
func TestLoadExistingLayer(t *testing.T) {
	base := imagetest.Tar(t, imagetest.Dir("etc"), imagetest.File("etc/b", "base"))
	own := imagetest.Plain(imagetest.Tar(t, imagetest.File("etc/a", "own")))
	reg := imagetest.NewRegistry(t)
	reg.Push("base", "1", imagetest.Image{Layers: []imagetest.Layer{imagetest.Gzip(t, base)}})
	damaged := imagetest.Plain(base)
	damaged.Blob = imagetest.Tar(t, imagetest.Dir("etc"), imagetest.File("etc/b", "evil"))
	img := imagetest.Image{Layers: []imagetest.Layer{damaged, own}}
	data := imagetest.Tar(t, imagetest.DockerEntries(t, imagetest.Named{Names: []string{"app:1"}, Image: img})...)

	b := newBed(t, reg)
	if _, err := b.Load(t.Context(), LoadRequest{Archive: bytes.NewReader(data)}); !errdefs.IsDataLoss(err) {
		t.Errorf("load of the damaged archive without the layer: got %v, want DataLoss", err)
	}
	equal(t, "layers after the failure", b.layerCount(t), 0)
	b.pull(t, reg.Host+"/base:1")
	loaded := b.load(t, data, "")
	root, _ := b.mount(t, loaded[0].Image)
	equal(t, "files", read(t, root, "etc/a")+read(t, root, "etc/b"), "ownbase")
	equal(t, "layers", b.layerCount(t), 2)
}

func TestLoadNames(t *testing.T) {
	b := newBed(t)
	one := imagetest.Tar(t, imagetest.OCIEntries(t, imagetest.Named{Names: []string{"a:1"}, Image: app(t, "b", "1")})...)
	loaded := b.load(t, one, "registry.test/x")
	equalList(t, "names", loaded[0].Names, []string{"registry.test/x:latest"})
	equalList(t, "tags", b.List()[0].RepoTags, []string{"registry.test/x:latest"})
	two := imagetest.Tar(t, imagetest.OCIEntries(t, imagetest.Named{Image: app(t, "b", "1")}, imagetest.Named{Image: app(t, "b", "2")})...)
	for name, data := range map[string][]byte{"x:1": two, "Upper:1": one, "x@sha256:" + strings.Repeat("a", 64): one} {
		_, err := b.Load(t.Context(), LoadRequest{Archive: bytes.NewReader(data), Name: name})
		if !errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), "name: ") {
			t.Errorf("name %q: got %v", name, err)
		}
	}
	// One image of the archive has a name that is not valid. The other one is loaded.
	mixed := imagetest.Tar(t, imagetest.OCIEntries(t, imagetest.Named{Names: []string{"Upper:1"}, Image: app(t, "b", "3")},
		imagetest.Named{Names: []string{"good:1"}, Image: app(t, "b", "4")})...)
	got, err := b.Load(t.Context(), LoadRequest{Archive: bytes.NewReader(mixed)})
	if err != nil || len(got) != 2 || !errdefs.IsInvalidArgument(got[0].Err) || got[1].Err != nil {
		t.Errorf("archive with a good and a bad image: got %+v, %v", got, err)
	}
}

// TestLoadTwiceAtOnce loads the same archive several times at once.
func TestLoadTwiceAtOnce(t *testing.T) {
	b := newBed(t)
	img := app(t, noise(1<<20), "1")
	data := imagetest.Tar(t, imagetest.DockerEntries(t, imagetest.Named{Names: []string{"a:1"}, Image: img})...)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, err := b.Load(context.Background(), LoadRequest{Archive: bytes.NewReader(data)}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	equal(t, "layers", b.layerCount(t), 2)
	root, _ := b.mount(t, b.List()[0])
	equal(t, "file", read(t, root, "etc/a"), "1")
}

// TestLoadCancelled checks that a load ends with its context, and that an error of the source is returned.
func TestLoadCancelled(t *testing.T) {
	b := newBed(t)
	data := imagetest.Tar(t, imagetest.DockerEntries(t, imagetest.Named{Image: app(t, noise(1<<20), "1")})...)
	gone := errors.New("client has left")
	_, err := b.Load(t.Context(), LoadRequest{Archive: io.MultiReader(bytes.NewReader(data[:len(data)/2]), failingReader{gone})})
	if !errors.Is(err, gone) {
		t.Errorf("got %v, want the error of the source", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Load(ctx, LoadRequest{Archive: bytes.NewReader(data)}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	equal(t, "layers", b.layerCount(t), 0)
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }
