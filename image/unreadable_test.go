package image

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/criserver/criserver/image/internal/imagetest"
	"github.com/criserver/criserver/internal/ids"
)

// covered returns an image with a cover: its upper layer has files in a directory for which only
// the lower layer has an entry.
func covered(tb testing.TB) imagetest.Image {
	tb.Helper()
	return imagetest.Image{Layers: []imagetest.Layer{
		imagetest.Files(tb, imagetest.DirMode("home", 7, 0o700), imagetest.File("home/low", "low")),
		imagetest.Files(tb, imagetest.File("home/top", "top")),
	}}
}

// old changes all layers as if they had been unpacked in this boot a long time ago.
func (b *bed) old(tb testing.TB) {
	tb.Helper()
	records, err := filepath.Glob(filepath.Join(b.Manager.dir(layersDir), "*", "layer.json"))
	if err != nil {
		tb.Fatal(err)
	}
	for _, path := range records {
		var l map[string]any
		if json.Unmarshal([]byte(read(tb, path)), &l) != nil {
			continue
		}
		l["added"] = time.Now().Add(-48 * time.Hour)
		text, err := json.Marshal(l)
		if err != nil {
			tb.Fatal(err)
		}
		write(tb, path, string(text))
	}
}

// collect runs everything that deletes files: a restart, the expiry of layers, a repair, and the
// deletion of the trash.
func (b *bed) collect(tb testing.TB) {
	tb.Helper()
	b.restart(tb)
	if err := b.layers.DropOlder(tb.Context(), time.Now()); err != nil {
		tb.Fatal(err)
	}
	if _, err := b.Check(tb.Context(), true); err != nil {
		tb.Fatal(err)
	}
	if err := b.EmptyTrash(tb.Context()); err != nil {
		tb.Fatal(err)
	}
}

// damages are ways to make the records of an image unreadable.
var damages = map[string]func(image, layer string) error{
	"image.json empty":   func(i, _ string) error { return os.Truncate(filepath.Join(i, recordFile), 0) },
	"image.json missing": func(i, _ string) error { return os.Remove(filepath.Join(i, recordFile)) },
	"image.json of a newer version": func(i, _ string) error {
		path := filepath.Join(i, recordFile)
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(path, []byte(strings.Replace(string(b), `"version":1`, `"version":2`, 1)), 0o600)
	},
	"config.json empty": func(i, _ string) error { return os.Truncate(filepath.Join(i, configFile), 0) },
	"image.json and config.json empty": func(i, _ string) error {
		if err := os.Truncate(filepath.Join(i, configFile), 0); err != nil {
			return err
		}
		return os.Truncate(filepath.Join(i, recordFile), 0)
	},
	"image.json and config.json missing": func(i, _ string) error {
		if err := os.Remove(filepath.Join(i, configFile)); err != nil {
			return err
		}
		return os.Remove(filepath.Join(i, recordFile))
	},
	"layer.json empty":            func(_, l string) error { return os.Truncate(filepath.Join(l, "layer.json"), 0) },
	"layer.json missing":          func(_, l string) error { return os.Remove(filepath.Join(l, "layer.json")) },
	"layer.json of another layer": func(_, l string) error { return os.WriteFile(filepath.Join(l, "layer.json"), []byte("{}"), 0o600) },
}

// TestUnreadableImageInUse damages the records of an image that a container uses. The files of the
// container must not change, other images must be usable, and the image can be pulled again.
func TestUnreadableImageInUse(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	img := covered(t)
	reg.Push("a", "1", img)
	reg.Push("b", "1", three(t))
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, reg)
			id := b.pull(t, reg.Host+"/a:1")
			b.pull(t, reg.Host+"/b:1")
			root, container := b.mount(t, id)
			checkRoot := func() {
				t.Helper()
				// This directory is not in the page cache, so it is read from the layers.
				equal(t, "file of the upper layer", read(t, root, "home/top"), "top")
				equal(t, "file of the lower layer", read(t, root, "home/low"), "low")
				info, err := os.Stat(filepath.Join(root, "home"))
				if err != nil || info.Mode().Perm() != 0o700 {
					t.Errorf("directory of the cover: got %v, %v", info, err)
				}
			}
			if err := damage(b.imageDir(id.ID), filepath.Join(b.Manager.dir(layersDir), img.Layers[0].DiffID.Encoded())); err != nil {
				t.Fatal(err)
			}
			b.old(t)
			b.collect(t)
			checkRoot()
			if _, err := b.Get(id.ID.String()); !errdefs.IsNotFound(err) {
				t.Errorf("get damaged image: got %v", err)
			}
			found, err := b.Check(t.Context(), true)
			if err != nil || len(found) != 1 || found[0].Image != id.ID && found[0].Image != "" || found[0].Repaired || !strings.Contains(found[0].User, container) {
				t.Errorf("got problems %+v, %v", found, err)
			}
			if _, err := b.Get(reg.Host + "/b:1"); err != nil {
				t.Errorf("get other image: %v", err)
			}
			again := b.pull(t, reg.Host+"/a:1")
			equal(t, "id", again.ID, id.ID)
			b.collect(t)
			checkRoot()
			if found, err := b.Check(t.Context(), false); err != nil || len(found) > 0 {
				t.Errorf("got problems after the image was pulled again: %+v, %v", found, err)
			}
			second, _ := b.mount(t, again)
			equal(t, "file in a second container", read(t, second, "home/low"), "low")
		})
	}
}

// TestUnreadableMountRecord damages the record of a container's root file system or volume. It can
// be a mount of any image, so no image can be removed until the container is removed.
func TestUnreadableMountRecord(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	reg.Push("a", "1", covered(t))
	for name, damage := range map[string]func(tb testing.TB, path string){
		"empty":   func(tb testing.TB, path string) { write(tb, path, "") },
		"missing": func(tb testing.TB, path string) { _ = os.Remove(path) },
	} {
		for _, kind := range []string{"root file system", "volume"} {
			t.Run(kind+", "+name, func(t *testing.T) {
				b := newBed(t, reg)
				img := b.pull(t, reg.Host+"/a:1")
				root, record, container := b.mountKind(t, kind, img)
				damage(t, record)
				b.old(t)
				b.collect(t)
				equal(t, "file", read(t, root, "home/low"), "low")
				if err := b.Remove(t.Context(), img.ID.String()); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), container) {
					t.Errorf("remove image: got %v", err)
				}
				if err := b.Sweep(t.Context(), func(string) bool { return false }); err != nil {
					t.Fatal(err)
				}
				if _, err := os.Stat(filepath.Join(root, "home")); err == nil {
					t.Error("mount still exists")
				}
				if err := b.Remove(t.Context(), img.ID.String()); err != nil {
					t.Errorf("remove image after the container: %v", err)
				}
				equal(t, "layers", b.layerCount(t), 0)
			})
		}
	}
}

// TestMountRecordWithoutLayers restores a record of an older version, which does not have the
// layers of the image.
func TestMountRecordWithoutLayers(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	reg.Push("a", "1", covered(t))
	b := newBed(t, reg)
	img := b.pull(t, reg.Host+"/a:1")
	root, record, _ := b.mountKind(t, "root file system", img)
	var r map[string]any
	if err := json.Unmarshal([]byte(read(t, record)), &r); err != nil {
		t.Fatal(err)
	}
	delete(r, "layers")
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	write(t, record, string(text))
	write(t, filepath.Join(b.imageDir(img.ID), recordFile), "")
	write(t, filepath.Join(b.imageDir(img.ID), configFile), "")
	b.old(t)
	b.collect(t)
	equal(t, "file", read(t, root, "home/low"), "low")
}

// mountKind mounts an image for a container. It returns the mount point, the path of the record and
// the id of the container.
func (b *bed) mountKind(tb testing.TB, kind string, img Image) (root, record, container string) {
	tb.Helper()
	container = ids.New()
	if kind == "volume" {
		path, err := b.MountVolume(tb.Context(), VolumeRequest{ImageID: img.ID, ContainerID: container})
		if err != nil {
			tb.Fatal(err)
		}
		return path, filepath.Join(filepath.Dir(path), "volume.json"), container
	}
	root = filepath.Join(tb.TempDir(), container)
	if err := os.MkdirAll(root, 0o700); err != nil {
		tb.Fatal(err)
	}
	if _, err := b.MountRootFS(tb.Context(), img.ID, container, root); err != nil {
		tb.Fatal(err)
	}
	return root, filepath.Join(b.Manager.dir(rootfsDir), container, "rootfs.json"), container
}
