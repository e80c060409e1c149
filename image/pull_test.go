package image

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/criserver/criserver/image/internal/imagetest"
)

// three returns an image whose layers replace, delete and hide files.
func three(tb testing.TB) imagetest.Image {
	return imagetest.Image{Layers: []imagetest.Layer{
		imagetest.Files(tb, imagetest.Dir("etc"), imagetest.File("etc/a", "lower"), imagetest.File("etc/b", "lower"),
			imagetest.Dir("opt"), imagetest.File("opt/old", "x"), imagetest.Symlink("link", "etc/a")),
		imagetest.Zstd(tb, imagetest.Tar(tb, imagetest.File("etc/a", "upper"), imagetest.File("etc/.wh.b", ""))),
		imagetest.Plain(imagetest.Tar(tb, imagetest.Dir("opt"), imagetest.File("opt/.wh..wh..opq", ""), imagetest.File("opt/new", "y"))),
	}}
}

func TestPullAndMount(t *testing.T) {
	for name, img := range map[string]imagetest.Pushable{
		"OCI": three(t), "docker": imagetest.Image{Layers: three(t).Layers[:1], Docker: true},
		"index": imagetest.Index{
			{Arch: "riscv64", Layers: []imagetest.Layer{imagetest.Files(t, imagetest.File("wrong", ""))}},
			{Arch: runtime.GOARCH, Layers: three(t).Layers},
		},
	} {
		t.Run(name, func(t *testing.T) {
			reg := imagetest.NewRegistry(t)
			b := newBed(t, reg)
			top := reg.Push("a/b", "v1", img)
			ref := reg.Host + "/a/b:v1"
			got := b.pull(t, ref)
			equalList(t, "tags", got.RepoTags, []string{ref})
			want := []string{reg.Host + "/a/b@" + got.Manifest.String()}
			if got.Manifest != top {
				want = addName(want, reg.Host+"/a/b@"+top.String())
			}
			equalList(t, "digests", got.RepoDigests, want)
			if got.Size == 0 || len(got.Layers) == 0 || got.Layers[0].ChainID != got.Layers[0].DiffID {
				t.Errorf("got image %+v", got)
			}
			root, _ := b.mount(t, got)
			if name == "docker" {
				equal(t, "etc/a", read(t, root, "link"), "lower")
				return
			}
			equal(t, "etc/a", read(t, root, "link"), "upper")
			equalList(t, "etc", names(t, filepath.Join(root, "etc")), []string{"a"})
			equalList(t, "opt", names(t, filepath.Join(root, "opt")), []string{"new"})
		})
	}
}

func TestContainersDoNotShareWrites(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	reg.Push("a", "1", three(t))
	img := b.pull(t, reg.Host+"/a:1")
	one, container := b.mount(t, img)
	two, _ := b.mount(t, img)
	write(t, filepath.Join(one, "etc/a"), "changed")
	if err := os.Remove(filepath.Join(one, "opt/new")); err != nil {
		t.Fatal(err)
	}
	equal(t, "file in the other container", read(t, two, "etc/a"), "upper")
	equal(t, "file in the other container", read(t, two, "opt/new"), "y")
	if err := b.UnmountRootFS(t.Context(), container); err != nil {
		t.Fatal(err)
	}
	again := t.TempDir()
	if _, err := b.MountRootFS(t.Context(), img.ID, container, again); err != nil {
		t.Fatal(err)
	}
	equal(t, "file in a new root file system", read(t, again, "etc/a"), "upper")
}

func TestPullJoinsRunningPull(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	layer := imagetest.Files(t, imagetest.File("f", "x"))
	shared := imagetest.Image{Layers: []imagetest.Layer{layer, layer, imagetest.Files(t, imagetest.File("g", ""))}}
	reg.Push("a", "1", shared)
	other := shared
	other.Comment = "other"
	reg.Push("b", "1", other)
	started, release := make(chan struct{}, 10), make(chan struct{})
	reg.Set(onBlob(layer.Digest(), func(w http.ResponseWriter, _ *http.Request, b []byte) {
		started <- struct{}{}
		<-release
		_, _ = w.Write(b)
	}))
	var all sync.WaitGroup
	startPull := func(ref string) {
		all.Go(func() {
			if _, err := b.Pull(context.Background(), PullRequest{Ref: reg.Host + ref}); err != nil {
				t.Error(err)
			}
		})
	}
	startPull("/a:1")
	<-started
	startPull("/a:1") // the same image
	startPull("/b:1") // another image with the same layers
	eventually(t, "request for the other image", func() bool {
		return strings.Contains(strings.Join(reg.Requests(), " "), "/v2/b/manifests/1")
	})
	close(release)
	all.Wait()
	equal(t, "fetches of the shared layer", 1+len(started), 1)
	equal(t, "images", len(b.List()), 2)
	equal(t, "layers", b.layerCount(t), 2)
	for _, img := range b.List() {
		root, _ := b.mount(t, img)
		equal(t, "file", read(t, root, "f"), "x")
	}
}

func TestPullCancelledByLastCaller(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	layer := imagetest.Files(t, imagetest.File("f", noise(1<<20)))
	reg.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{layer}})
	started := make(chan struct{}, 1)
	ended := make(chan struct{})
	reg.Set(onBlob(layer.Digest(), func(w http.ResponseWriter, r *http.Request, b []byte) {
		started <- struct{}{}
		imagetest.Stall(w, r, b)
		close(ended)
	}))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-started; cancel() }()
	if _, err := b.Pull(ctx, PullRequest{Ref: reg.Host + "/a:1"}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-ended
	reg.Set(imagetest.Faults{})
	b.pull(t, reg.Host+"/a:1") // waits for the end of the cancelled pull
}
