package image

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criserver/criserver/image/internal/imagetest"
)

func TestCheckAndRepair(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	base := imagetest.Files(t, imagetest.Dir("etc"), imagetest.File("etc/base", "content"), imagetest.Symlink("l", "etc/base"))
	upper := imagetest.Files(t, imagetest.File("upper", "x"))
	intact := imagetest.Files(t, imagetest.File("intact", "x"))
	reg.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{base, upper}})
	reg.Push("b", "1", imagetest.Image{Layers: []imagetest.Layer{intact}})
	for name, c := range map[string]struct {
		damage func(layer, image string) error
	}{
		"nothing":        {func(string, string) error { return nil }},
		"a file missing": {func(l, _ string) error { return os.Remove(filepath.Join(l, "etc/base")) }},
		"a file empty":   {func(l, _ string) error { return os.Truncate(filepath.Join(l, "etc/base"), 0) }},
		"an extra file":  {func(l, _ string) error { return os.WriteFile(filepath.Join(l, "etc/new"), nil, 0o644) }},
		"another mode":   {func(l, _ string) error { return os.Chmod(filepath.Join(l, "etc"), 0o700) }},
		"a manifest":     {func(_, i string) error { return os.WriteFile(filepath.Join(i, manifestFile), []byte("{}"), 0o600) }},
		"no config":      {func(_, i string) error { return os.Remove(filepath.Join(i, configFile)) }},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, reg)
			img := b.pull(t, reg.Host+"/a:1")
			other := b.pull(t, reg.Host+"/b:1")
			layer := filepath.Join(b.Manager.dir(layersDir), base.DiffID.Encoded(), "diff")
			if err := c.damage(layer, b.imageDir(img.ID)); err != nil {
				t.Fatal(err)
			}
			found, err := b.Check(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			if name == "nothing" {
				equal(t, "problems", len(found), 0)
				return
			}
			if len(found) != 1 || found[0].Image != img.ID || found[0].Err == nil || found[0].Repaired {
				t.Fatalf("got problems %+v", found)
			}
			if found, err = b.Check(t.Context(), true); err != nil || len(found) != 1 || !found[0].Repaired {
				t.Fatalf("repair: got %+v, %v", found, err)
			}
			root, _ := b.mount(t, b.pull(t, reg.Host+"/a:1"))
			equal(t, "file", read(t, root, "l"), "content")
			if _, err := b.Get(other.ID.String()); err != nil {
				t.Errorf("get undamaged image: %v", err)
			}
			if found, _ = b.Check(t.Context(), true); len(found) > 0 {
				t.Errorf("got problems after the repair: %+v", found)
			}
		})
	}
}

func TestCheckImageInUse(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	reg.Push("a", "1", three(t))
	b := newBed(t, reg)
	img := b.pull(t, reg.Host+"/a:1")
	b.mount(t, img)
	write(t, filepath.Join(b.imageDir(img.ID), manifestFile), "{}")
	found, err := b.Check(t.Context(), true)
	if err != nil || len(found) != 1 || found[0].Repaired {
		t.Errorf("got problems %+v, %v", found, err)
	}
	if _, err := b.Get(img.ID.String()); err != nil {
		t.Error(err)
	}
}

// TestCheckLayerInUse damages a layer of two images. A container uses one of the images. The other
// image must not be repaired, because the layer stays, and the next pull would find it.
func TestCheckLayerInUse(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	shared := imagetest.Files(t, imagetest.File("shared", "x"))
	reg.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{shared}})
	reg.Push("b", "1", imagetest.Image{Layers: []imagetest.Layer{shared, imagetest.Files(t, imagetest.File("b", "x"))}})
	b := newBed(t, reg)
	used, other := b.pull(t, reg.Host+"/a:1"), b.pull(t, reg.Host+"/b:1")
	_, container := b.mount(t, used)
	write(t, filepath.Join(b.Manager.dir(layersDir), shared.DiffID.Encoded(), "diff", "new"), "")
	found, err := b.Check(t.Context(), true)
	if err != nil || len(found) != 2 {
		t.Fatalf("got problems %+v, %v, want one for each image", found, err)
	}
	for _, p := range found {
		if p.Repaired || !strings.Contains(p.User, container) {
			t.Errorf("got problem %+v, want one that names container %s and is not repaired", p, container)
		}
	}
	if _, err := b.Get(other.ID.String()); err != nil {
		t.Error(err)
	}
}

// hookContext calls a function when a call asks for the nth time whether the context has ended.
type hookContext struct {
	context.Context //nolint:containedctx // of the test
	n               *int
	call            func()
}

func (c hookContext) Err() error {
	if *c.n--; *c.n == 0 {
		c.call()
	}
	return c.Context.Err()
}

// TestCheckDuringRemoval removes an image while Check reads its files, and pulls the image again.
// Check reports no problems of files that disappear.
func TestCheckDuringRemoval(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	layer := imagetest.Files(t, imagetest.Dir("a"), imagetest.File("b", "x"))
	reg.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{layer}})
	b := newBed(t, reg)
	remove := func(img Image) {
		if err := b.Remove(t.Context(), img.ID.String()); err != nil {
			t.Error(err)
		}
		if err := b.EmptyTrash(t.Context()); err != nil {
			t.Error(err)
		}
	}
	for _, tc := range []struct {
		name    string
		n       int // Verify asks after each of the two directories, and Check after Verify
		damaged bool
		again   bool
	}{
		{"removed while the files are read", 1, false, false},
		{"pulled again while the files are read", 1, false, true},
		{"removed after a problem was found", 3, true, false},
	} {
		img := b.pull(t, reg.Host+"/a:1")
		if tc.damaged {
			write(t, filepath.Join(b.Manager.dir(layersDir), layer.DiffID.Encoded(), "diff", "new"), "")
		}
		called := false
		ctx := hookContext{t.Context(), &tc.n, func() {
			called = true
			if remove(img); tc.again {
				b.pull(t, reg.Host+"/a:1")
			}
		}}
		if found, err := b.Check(ctx, false); err != nil || len(found) > 0 || !called {
			t.Errorf("%s: got %+v, %v, function called: %t; want no problems", tc.name, found, err, called)
		}
		if tc.again {
			remove(img)
		}
	}

	// The image disappears after Check has loaded the index.
	img := b.pull(t, reg.Host+"/a:1")
	old := b.index.Load().byID[img.ID]
	remove(img)
	if p, bad := b.checkCurrentImage(old, nil); bad {
		t.Errorf("check of an image that was removed: got %+v, want no problem", p)
	}
	img = b.pull(t, reg.Host+"/a:1")
	if p, bad := b.checkCurrentImage(old, nil); bad {
		t.Errorf("check of an image that was pulled again: got %+v, want no problem", p)
	}
	write(t, filepath.Join(b.imageDir(img.ID), manifestFile), "{}")
	if _, bad := b.checkCurrentImage(old, nil); !bad {
		t.Error("check of a broken image that was pulled again: got no problem")
	}
}
