package image

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/criserver/criserver/image/internal/imagetest"
	"github.com/criserver/criserver/internal/ids"
)

func TestSteps(t *testing.T) {
	history := func(commands ...string) (h []ispec.History) {
		for _, c := range commands {
			h = append(h, ispec.History{CreatedBy: c, EmptyLayer: c == "ENV"})
		}
		return h
	}
	for name, tc := range map[string]struct {
		history []ispec.History
		layers  int
		want    []string
	}{
		"no history":              {nil, 2, []string{"- 0", "- 1"}},
		"steps without layers":    {history("ENV", "COPY", "ENV", "RUN", "ENV"), 2, []string{"ENV -1", "COPY 0", "ENV -1", "RUN 1", "ENV -1"}},
		"more layers than steps":  {history("COPY", "ENV"), 3, []string{"COPY 0", "ENV -1", "- 1", "- 2"}},
		"more steps than layers":  {history("COPY", "RUN", "ENV"), 1, []string{"COPY 0", "ENV -1"}},
		"no layers and only ENVs": {history("ENV"), 0, []string{"ENV -1"}},
	} {
		t.Run(name, func(t *testing.T) {
			img := Image{Layers: make([]Layer, tc.layers), Config: ispec.Image{History: tc.history}}
			var got []string
			for _, s := range img.Steps() {
				command := "-"
				if s.History != nil {
					command = s.History.CreatedBy
				}
				got = append(got, fmt.Sprint(command, " ", s.Layer))
			}
			equalList(t, "steps", got, tc.want)
		})
	}
}

// TestContainerRootFS checks that the directories are the directories of the mount, with the cover and without a
// layer that changes nothing.
func TestContainerRootFS(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	low := imagetest.Files(t, imagetest.DirMode("d", 7, 0o700), imagetest.File("d/a", "a"))
	high := imagetest.Files(t, imagetest.File("d/b", "b")) // d is implied, so the image needs a cover
	reg.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{low, imagetest.Files(t), high}})
	img := b.pull(t, reg.Host+"/a:1")
	target, id := b.mount(t, img)
	fs, err := b.ContainerRootFS(id)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "image", fs.ImageID, img.ID)
	equal(t, "target", fs.Target, target)
	var got []string
	for _, l := range fs.Lower {
		got = append(got, l.Path+" "+l.DiffID.String())
	}
	layer := func(l imagetest.Layer) string {
		return filepath.Join(b.Manager.dir(layersDir), l.DiffID.Encoded(), "diff") + " " + l.DiffID.String()
	}
	equalList(t, "lower directories", got, []string{filepath.Join(b.imageDir(img.ID), coverDir) + " ", layer(high), layer(low)})
	write(t, filepath.Join(target, "written"), "x")
	equal(t, "file in the writable layer", read(t, fs.Upper, "written"), "x")
	equalList(t, "containers with the image", b.ImageContainers(img.ID), []string{id})
	equalList(t, "containers with the layer", b.LayerContainers(low.DiffID), []string{id})
	if _, err := b.ContainerRootFS(ids.New()); !errdefs.IsNotFound(err) {
		t.Errorf("unknown container: got %v", err)
	}
}
