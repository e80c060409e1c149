package image

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/criserver/criserver/image/internal/imagetest"
	"github.com/criserver/criserver/internal/ids"
)

func TestGetReferenceForms(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	reg.Push("a", "latest", three(t))
	img := b.pull(t, reg.Host+"/a")
	hex := img.ID.Encoded()
	for _, ref := range []string{
		img.ID.String(), hex, hex[:12], "sha256:" + hex[:12], reg.Host + "/a", reg.Host + "/a:latest",
		reg.Host + "/a@" + img.Manifest.String(), reg.Host + "/a:gone@" + img.Manifest.String(),
	} {
		if got, err := b.Get(ref); err != nil || got.ID != img.ID {
			t.Errorf("%s: %v, %v", ref, got.ID, err)
		}
	}
	for _, ref := range []string{"", "x", "a", reg.Host + "/a:2", reg.Host + "/b", strings.Repeat("0", 64), hex[:2], "sha256:", "../a", "A"} {
		if got, err := b.Get(ref); !errdefs.IsNotFound(err) {
			t.Errorf("%s: %v, %v", ref, got.ID, err)
		}
	}
}

func TestMoveTag(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	tag := reg.Host + "/a:1"
	reg.Push("a", "1", three(t))
	reg.Push("a", "other", three(t))
	old := b.pull(t, tag)
	equal(t, "the same image", b.pull(t, reg.Host+"/a:other").ID, old.ID)
	changed := three(t)
	changed.Comment = "rebuilt"
	reg.Push("a", "1", changed)
	reg.Requests()
	now := b.pull(t, tag)
	equal(t, "layers fetched", imagetest.Blobs(reg.Requests(), three(t).Layers[0].Digest()), 0)
	for range 2 {
		got, err := b.Get(tag)
		if err != nil || got.ID != now.ID || now.ID == old.ID {
			t.Errorf("image of the tag: got %s, %v", got.ID, err)
		}
		was, err := b.Get(old.ID.String())
		if err != nil {
			t.Fatal(err)
		}
		equalList(t, "tags of the old image", was.RepoTags, []string{reg.Host + "/a:other"})
		equalList(t, "digests of the old image", was.RepoDigests, old.RepoDigests)
		b.restart(t)
	}
	reg.Push("a", "1", three(t)) // move the tag back
	equal(t, "tag", b.pull(t, tag).ID, old.ID)
}

func TestRemove(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	base := imagetest.Files(t, imagetest.File("base", ""))
	reg.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{base, imagetest.Files(t, imagetest.File("a", ""))}})
	reg.Push("a", "2", imagetest.Image{Layers: []imagetest.Layer{base, imagetest.Files(t, imagetest.File("a", ""))}})
	reg.Push("b", "1", imagetest.Image{Layers: []imagetest.Layer{base, imagetest.Files(t, imagetest.File("b", ""))}})
	img := b.pull(t, reg.Host+"/a:1")
	b.pull(t, reg.Host+"/a:2")
	other := b.pull(t, reg.Host+"/b:1")
	equal(t, "layers", b.layerCount(t), 3)

	_, container := b.mount(t, img)
	b.restart(t)
	if err := b.Remove(t.Context(), img.ID.String()); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("remove image in use: got %v", err)
	}
	if err := b.UnmountRootFS(t.Context(), container); err != nil {
		t.Fatal(err)
	}
	if err := b.Remove(t.Context(), reg.Host+"/a:1"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, ref := range []string{reg.Host + "/a:1", reg.Host + "/a:2", img.ID.String()} {
			if _, err := b.Get(ref); !errdefs.IsNotFound(err) {
				t.Errorf("%s: %v", ref, err)
			}
			if err := b.Remove(t.Context(), ref); !errdefs.IsNotFound(err) {
				t.Errorf("%s: %v", ref, err)
			}
		}
		equal(t, "layers", b.layerCount(t), 2)
		b.restart(t)
	}
	b.mount(t, other)
	if _, err := b.MountRootFS(t.Context(), img.ID, ids.New(), t.TempDir()); !errdefs.IsNotFound(err) {
		t.Errorf("mount removed image: got %v", err)
	}
}

// TestRestoreAfterCrash restores the store from what a crash at each step of a pull or a removal
// leaves on disk.
func TestRestoreAfterCrash(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	reg.Push("a", "1", three(t))
	ref := reg.Host + "/a:1"
	image := func(b *bed) string { return filepath.Join(b.Manager.dir(imagesDir), three(t).ID().Encoded()) }
	layer := func(b *bed) string {
		return filepath.Join(b.Manager.dir(layersDir), three(t).Layers[0].DiffID.Encoded())
	}
	remove := func(path string) {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		crash func(b *bed)
		kept  bool // the image
	}{
		"while a layer is unpacked": {func(b *bed) {
			if err := os.MkdirAll(filepath.Join(b.Manager.dir(stageDir), "layer-1/diff/etc"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, true},
		"while a record is replaced": {func(b *bed) { write(t, b.Manager.dir("."+archivesFile+".criserver-1"), "{") }, true},
		"before the image's record":  {func(b *bed) { remove(filepath.Join(image(b), recordFile)) }, false},
		"layers without an image":    {func(b *bed) { remove(image(b)) }, false},
		"an image without a layer":   {func(b *bed) { remove(layer(b)) }, false},
		"a layer without its record": {func(b *bed) { remove(filepath.Join(layer(b), "layer.json")) }, false},
		"a torn record":              {func(b *bed) { write(t, filepath.Join(image(b), recordFile), `{"version":1`) }, false},
		"a torn config":              {func(b *bed) { write(t, filepath.Join(image(b), configFile), `{`) }, false},
		"a torn record of a layer":   {func(b *bed) { write(t, filepath.Join(layer(b), "layer.json"), `{`) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, reg)
			b.pull(t, ref)
			c.crash(b)
			b.restart(t)
			_, err := b.Get(ref)
			equal(t, "image exists", err == nil, c.kept)
			equal(t, "leftovers in the staging directory", len(names(t, b.Manager.dir(stageDir))), 0)
			equal(t, "temporary file", exists(b.Manager.dir("."+archivesFile+".criserver-1")), false)
			root, _ := b.mount(t, b.pull(t, ref))
			equal(t, "file", read(t, root, "etc/a"), "upper")
			b.restart(t)
			if _, err := b.Get(ref); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRestoreDropsUnsyncedLayers restores layers of an earlier boot, with and without an image.
func TestRestoreDropsUnsyncedLayers(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	reg.Push("a", "1", three(t))
	b := newBed(t, reg)
	b.pull(t, reg.Host+"/a:1")
	for _, id := range names(t, b.Manager.dir(layersDir)) {
		path := filepath.Join(b.Manager.dir(layersDir), id, "layer.json")
		record := read(t, path)
		_, rest, _ := strings.Cut(record, `"bootID":"`)
		write(t, path, strings.Replace(record, rest[:36], "of-before", 1))
	}
	b.restart(t)
	equal(t, "layers with an image", b.layerCount(t), 3)
	if err := os.RemoveAll(b.Manager.dir(imagesDir)); err != nil {
		t.Fatal(err)
	}
	b.restart(t)
	equal(t, "layers without an image", b.layerCount(t), 0)
}

func TestManyLayers(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	var img imagetest.Image
	for i := range 130 {
		img.Layers = append(img.Layers, imagetest.Files(t, imagetest.File(fmt.Sprint("f", i), fmt.Sprint(i)), imagetest.File("top", fmt.Sprint(i))))
	}
	reg.Push("a", "1", img)
	root, _ := b.mount(t, b.pull(t, reg.Host+"/a:1"))
	equal(t, "file of the topmost layer", read(t, root, "top"), "129")
	equal(t, "file of the lowest layer", read(t, root, "f0"), "0")
	equal(t, "files", len(names(t, root)), 131)
}

func TestImpliedDirectoryMode(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	upper := imagetest.Files(t, imagetest.File("tmp/f", ""))
	reg.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{imagetest.Files(t, imagetest.DirMode("tmp", 0, 0o1777)), upper}})
	reg.Push("b", "1", imagetest.Image{Layers: []imagetest.Layer{imagetest.Files(t, imagetest.DirMode("tmp", 9, 0o700)), upper}})
	for repo, want := range map[string]os.FileMode{"a": 0o777 | os.ModeSticky, "b": 0o700} {
		img := b.pull(t, reg.Host+"/"+repo+":1")
		b.restart(t)
		root, _ := b.mount(t, img)
		info, err := os.Stat(filepath.Join(root, "tmp"))
		if err != nil || info.Mode()&^os.ModeDir != want {
			t.Errorf("%s: mode %v, %v", repo, info.Mode(), err)
		}
	}
	equal(t, "layers", b.layerCount(t), 3)
}

func TestUsage(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	reg.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{imagetest.Files(t, imagetest.File("f", noise(1<<20)))}})
	img := b.pull(t, reg.Host+"/a:1")
	images, containers, err := b.FSUsage(t.Context())
	if err != nil || images.Bytes < 1<<20 || images.Bytes > 2<<20 || images.Inodes < 2 || images.Mountpoint != b.cfg.Root {
		t.Errorf("got usage of images %+v, %v", images, err)
	}
	equal(t, "containers", containers.Bytes, 0)
	if img.Size < 1<<20 || img.Size > 2<<20 {
		t.Errorf("got image size %d", img.Size)
	}
	du, err := exec.Command("du", "-s", "--block-size=1", filepath.Join(b.Manager.dir(layersDir), names(t, b.Manager.dir(layersDir))[0], "diff")).Output()
	var onDisk uint64
	if _, serr := fmt.Sscan(string(du), &onDisk); err != nil || serr != nil || onDisk > img.Size || img.Size > onDisk+16<<10 {
		t.Errorf("du reports %d bytes, size of the image is %d, %v, %v", onDisk, img.Size, err, serr)
	}
}

func TestPinned(t *testing.T) {
	for pattern, want := range map[string]bool{
		"registry.k8s.io/pause:3.9": true, "registry.k8s.io/pause*": true, "*pause*": true, "*": true,
		"registry.k8s.io/pause": false, "pause*": false, "": false,
	} {
		img := &Image{RepoTags: []string{"registry.k8s.io/pause:3.9"}}
		equal(t, fmt.Sprintf("%q", pattern), pins{patterns: []string{pattern}}.has(img), want)
	}
}

func TestExpireLayers(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	good, bad := imagetest.Files(t, imagetest.File("good", "")), imagetest.Files(t, imagetest.File("bad", ""))
	reg.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{good, bad}})
	reg.Push("b", "1", imagetest.Image{Layers: []imagetest.Layer{bad}})
	b.pull(t, reg.Host+"/a:1")
	keep := b.pull(t, reg.Host+"/b:1")
	if err := os.RemoveAll(filepath.Join(b.Manager.dir(imagesDir), b.List()[slices.IndexFunc(b.List(), func(i Image) bool { return i.ID != keep.ID })].ID.Encoded())); err != nil {
		t.Fatal(err)
	}
	b.restart(t)
	equal(t, "layers within the resume window", b.layerCount(t), 2)
	if err := b.layers.DropOlder(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	equal(t, "layers after the resume window", b.layerCount(t), 1)
	if _, ok := b.layers.Get(bad.DiffID); !ok {
		t.Error("layer of an image was deleted")
	}
}

func TestAmbiguousPrefix(t *testing.T) {
	id := func(hex string) *stored {
		return &stored{Image: Image{ID: digest.NewDigestFromEncoded(digest.SHA256, hex+strings.Repeat("0", 64-len(hex)))}}
	}
	x := newIndex([]*stored{id("abc1"), id("abc2"), id("def")}, nil, pins{})
	none := func() []string { return nil }
	if _, err := x.find("abc", none); !errdefs.IsInvalidArgument(err) {
		t.Errorf("got %v", err)
	}
	if img, err := x.find("abc2", none); err != nil || img.ID != id("abc2").ID {
		t.Errorf("got %v, %v", img, err)
	}
	if _, err := x.find("ab", none); !errdefs.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
	if !bytes.Equal([]byte(x.list[0].ID), []byte(id("abc1").ID)) {
		t.Error("list is not sorted")
	}
}
