package image

import (
	"fmt"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/criserver/criserver/image/internal/imagetest"
)

// TestAsManyLayersAsThereMayBe mounts what overlay can just take, with and
// without the directories' metadata corrected on top, and refuses one more.
func TestAsManyLayersAsThereMayBe(t *testing.T) {
	if testing.Short() {
		t.Skip("a thousand layers are not for a short run")
	}
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	below := []imagetest.Layer{imagetest.Files(t, imagetest.DirMode("d", 7, 0o700))}
	var flat []imagetest.Layer
	for i := range 501 {
		below = append(below, imagetest.Files(t, imagetest.File(fmt.Sprint("d/", i), "")))
		flat = append(flat, imagetest.Files(t, imagetest.File(fmt.Sprint(i), "")))
	}
	for name, c := range map[string]struct {
		layers []imagetest.Layer
		ok     bool
		files  int
		dir    string
	}{
		"flat-500": {flat[:500], true, 500, "."}, "flat-501": {flat[:501], false, 0, ""},
		"below-499": {below[:499], true, 498, "d"}, "below-500": {below[:500], false, 0, ""},
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
