package image

import (
	"testing"

	"github.com/containerd/errdefs"

	"github.com/criserver/criserver/image/internal/imagetest"
	"github.com/criserver/criserver/internal/ids"
)

// A volume keeps its image, also after a restart, and no longer than it lives.
func TestVolumeKeepsItsImage(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	reg.Push("a", "1", three(t))
	img := b.pull(t, reg.Host+"/a:1")
	req := VolumeRequest{ImageID: img.ID, ContainerID: ids.New(), Index: 3, SubPath: "etc"}
	path, err := b.MountVolume(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "file of the volume", read(t, path, "a"), "upper")
	for range 2 {
		if err := b.Remove(t.Context(), img.ID.String()); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("removed in use: %v", err)
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
		t.Errorf("volume of a removed image: %v", err)
	}
}
