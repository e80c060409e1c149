package image

import (
	"fmt"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/criserver/criserver/image/internal/imagetest"
	"github.com/criserver/criserver/internal/ids"
)

// TestVolumeProtectsImage mounts a volume of an image, which cannot be removed until the volume is
// unmounted, also after a restart.
func TestVolumeProtectsImage(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	reg.Push("a", "1", three(t))
	img := b.pull(t, reg.Host+"/a:1")
	req := VolumeRequest{ImageID: img.ID, ContainerID: ids.New(), Index: 3, SubPath: "etc"}
	path, err := b.MountVolume(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "content of the volume", read(t, path, "a"), "upper")
	for range 2 {
		if err := b.Remove(t.Context(), img.ID.String()); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("remove image in use: got %v", err)
		}
		b.restart(t)
	}
	for range 2 {
		if err := b.UnmountVolumes(t.Context(), req.ContainerID); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Remove(t.Context(), img.ID.String()); err != nil {
		t.Error(err)
	}
	if _, err := b.MountVolume(t.Context(), req); !errdefs.IsNotFound(err) {
		t.Errorf("mount volume of a removed image: got %v", err)
	}
}

// TestMaxLayers mounts images with the maximum number of layers, with and without a cover, and
// pulls images with one layer more, which are refused.
func TestMaxLayers(t *testing.T) {
	if testing.Short() {
		t.Skip("unpacks a thousand layers, which takes long")
	}
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	withCover := []imagetest.Layer{imagetest.Files(t, imagetest.DirMode("d", 7, 0o700))}
	var flat []imagetest.Layer
	for i := range 501 {
		withCover = append(withCover, imagetest.Files(t, imagetest.File(fmt.Sprint("d/", i), "")))
		flat = append(flat, imagetest.Files(t, imagetest.File(fmt.Sprint(i), "")))
	}
	for name, c := range map[string]struct {
		layers []imagetest.Layer
		ok     bool
		files  int
		dir    string
	}{
		"flat-500": {flat[:500], true, 500, "."}, "flat-501": {flat[:501], false, 0, ""},
		"cover-499": {withCover[:499], true, 498, "d"}, "cover-500": {withCover[:500], false, 0, ""},
	} {
		reg.Push(name, "1", imagetest.Image{Layers: c.layers})
		ref := reg.Host + "/" + name + ":1"
		if !c.ok {
			if _, err := b.Pull(t.Context(), PullRequest{Ref: ref}); !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s: got %v", name, err)
			}
			continue
		}
		root, _ := b.mount(t, b.pull(t, ref))
		equal(t, name+": files", len(names(t, root+"/"+c.dir)), c.files)
	}
}
