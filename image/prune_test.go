package image

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/criserver/criserver/image/internal/imagetest"
)

// pruned returns the tags of the removed images, and the sum of the freed bytes.
func (b *bed) pruned(tb testing.TB, o PruneOptions) (tags []string, freed uint64, young int) {
	tb.Helper()
	removed, young, err := b.Prune(tb.Context(), o)
	if err != nil {
		tb.Fatal(err)
	}
	for _, r := range removed {
		if r.Err != nil {
			tb.Errorf("remove %s: %v", r.Image.ID, r.Err)
		}
		freed += r.Freed
		tags = append(tags, r.Image.RepoTags...)
	}
	slices.Sort(tags)
	return tags, freed, young
}

func TestPrune(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	b.cfg.PinnedImages = []string{reg.Host + "/pinned:1"}
	b.restart(t)
	base := imagetest.Files(t, imagetest.File("base", noise(100<<10)))
	var refs []string
	for _, name := range []string{"pinned", "used", "one", "two"} {
		layers := []imagetest.Layer{base, imagetest.Files(t, imagetest.File(name, noise(8<<10)))}
		if name == "one" || name == "two" {
			// These two images share a layer that no other image has.
			layers[0] = imagetest.Files(t, imagetest.File("other", "x"))
		}
		reg.Push(name, "1", imagetest.Image{Layers: layers})
		b.pull(t, reg.Host+"/"+name+":1")
		refs = append(refs, reg.Host+"/"+name+":1")
	}
	used, err := b.Get(refs[1])
	if err != nil {
		t.Fatal(err)
	}
	b.mount(t, used)
	one, err := b.Get(refs[2])
	if err != nil {
		t.Fatal(err)
	}
	if freed := b.FreedBytes(&one); freed == 0 || freed != one.Size-one.Layers[0].Size {
		t.Errorf("removal of one image frees %d bytes, want those of its own layer: %d", freed, one.Size-one.Layers[0].Size)
	}

	tags, _, young := b.pruned(t, PruneOptions{All: true, MinAge: time.Hour})
	equalList(t, "images to remove after an hour", tags, nil)
	equal(t, "young images", young, 2)
	tags, _, _ = b.pruned(t, PruneOptions{})
	equalList(t, "dangling images", tags, nil)
	before, _ := b.layers.Total()
	tags, announced, _ := b.pruned(t, PruneOptions{All: true, DryRun: true})
	equalList(t, "images to remove", tags, []string{refs[2], refs[3]})
	equal(t, "images after a dry run", len(b.List()), 4)
	tags, freed, _ := b.pruned(t, PruneOptions{All: true})
	equalList(t, "removed images", tags, []string{refs[2], refs[3]})
	equal(t, "freed bytes", freed, announced)
	after, _ := b.layers.Total()
	if layers := before - after; freed < layers || freed > layers+8<<10 {
		t.Errorf("freed %d bytes, and the layers of the store have %d bytes less", freed, layers)
	}
	for _, ref := range refs[:2] {
		if _, err := b.Get(ref); err != nil {
			t.Errorf("pinned or used image: %v", err)
		}
	}
}

// TestPruneDangling checks that an image is removed whose tag has moved to another image.
func TestPruneDangling(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	var old Image
	for _, content := range []string{"old", "new"} {
		reg.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{imagetest.Files(t, imagetest.File("f", content))}})
		img := b.pull(t, reg.Host+"/a:1")
		if content == "old" {
			old = img
		}
	}
	removed, _, err := b.Prune(t.Context(), PruneOptions{})
	if err != nil || len(removed) != 1 || removed[0].Image.ID != old.ID {
		t.Errorf("got %v, %v, want the image without a tag", removed, err)
	}
	if _, err := b.Get(old.ID.String()); !errdefs.IsNotFound(err) {
		t.Errorf("removed image: got %v", err)
	}
}

// TestPullProgressOf checks that the progress has all layers of the image from the beginning, also those
// that wait, and that a pull ends when its only caller leaves.
func TestPullProgressOf(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	b.cfg.MaxParallelLayers = 1
	b.restart(t)
	first := imagetest.Files(t, imagetest.File("f", noise(1<<20)))
	second := imagetest.Files(t, imagetest.File("g", noise(1<<20)))
	reg.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{first, second}})
	const part = 100 << 10
	reg.Set(onBlob(first.Digest(), func(w http.ResponseWriter, r *http.Request, content []byte) {
		_, _ = w.Write(content[:part])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	req := PullRequest{Ref: reg.Host + "/a:1"}
	if _, ok := b.PullProgressOf(req); ok {
		t.Error("a pull that was not started has a progress")
	}
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	result := make(chan error, 1)
	go func() {
		_, err := b.Pull(ctx, req)
		result <- err
	}()
	var p PullProgress
	eventually(t, "first part received", func() bool {
		p, _ = b.PullProgressOf(req)
		return p.Bytes == part
	})
	if len(p.Layers) != 2 || p.Layers[0].State != "fetching" || p.Layers[1].State != "waiting" ||
		p.Layers[0].Digest != first.Digest() || p.Layers[1].Digest != second.Digest() {
		t.Errorf("got layers %+v, want the first fetching and the second waiting", p.Layers)
	}
	equal(t, "total", p.Total, int64(len(first.Blob)+len(second.Blob)))
	leave()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want Canceled", err)
	}
	eventually(t, "the pull has ended", func() bool { _, ok := b.PullProgressOf(req); return !ok })
}
