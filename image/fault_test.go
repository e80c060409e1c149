package image

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/criserver/criserver/image/internal/imagetest"
	"github.com/criserver/criserver/image/pull"
)

// onBlob returns faults with a handler for the requests for one blob.
func onBlob(want digest.Digest, answer func(http.ResponseWriter, *http.Request, []byte)) imagetest.Faults {
	return imagetest.Faults{Blob: func(w http.ResponseWriter, r *http.Request, d digest.Digest, b []byte) bool {
		if d == want {
			answer(w, r, b)
		}
		return d == want
	}}
}

// noise returns n bytes or more that do not compress well.
func noise(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		b.WriteString(digest.FromString(fmt.Sprint(i)).Encoded())
	}
	return b.String()
}

func TestResumePull(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request, []byte){
		"truncated": func(w http.ResponseWriter, _ *http.Request, b []byte) { imagetest.Truncate(w, b) },
		"corrupt": func(w http.ResponseWriter, _ *http.Request, b []byte) {
			b = append([]byte(nil), b...)
			b[len(b)/2] ^= 0xff
			_, _ = w.Write(b)
		},
		"too short":   func(w http.ResponseWriter, _ *http.Request, b []byte) { _, _ = w.Write(b[:len(b)-100]) },
		"bad gateway": func(w http.ResponseWriter, r *http.Request, _ []byte) { http.Error(w, "", http.StatusBadGateway) },
	} {
		t.Run(name, func(t *testing.T) {
			reg := imagetest.NewRegistry(t)
			b := newBed(t, reg)
			good := imagetest.Files(t, imagetest.File("good", "g"))
			bad := imagetest.Files(t, imagetest.File("bad", noise(1<<20)))
			reg.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{good, bad}})
			unpacked := make(chan struct{})
			reg.Set(onBlob(bad.Digest(), func(w http.ResponseWriter, r *http.Request, content []byte) {
				select {
				case <-unpacked:
				default:
					if err := waitFor("the other layer", func() bool { _, ok := b.layers.Get(good.DiffID); return ok }); err != nil {
						t.Error(err)
					}
					close(unpacked)
				}
				answer(w, r, content)
			}))
			_, err := b.Pull(t.Context(), PullRequest{Ref: reg.Host + "/a:1"})
			if !errdefs.IsUnavailable(err) && !errdefs.IsDataLoss(err) {
				t.Fatalf("got %v", err)
			}
			if len(b.List()) > 0 {
				t.Errorf("got images %v", b.List())
			}
			b.restart(t) // like after a crash
			if staged := names(t, b.Manager.dir(stageDir)); len(staged) > 0 {
				t.Errorf("leftovers in the staging directory: %v", staged)
			}
			reg.Set(imagetest.Faults{})
			reg.Requests()
			root, _ := b.mount(t, b.pull(t, reg.Host+"/a:1"))
			equal(t, "file", read(t, root, "good"), "g")
			if n := imagetest.Blobs(reg.Requests(), good.Digest()); n > 0 {
				t.Errorf("complete layer was fetched again %d times", n)
			}
		})
	}
}

func TestStalledPull(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	b.cfg.ProgressWindow = 200 * time.Millisecond
	b.restart(t)
	layer := imagetest.Files(t, imagetest.File("f", noise(1<<20)))
	reg.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{layer}})
	reg.Set(onBlob(layer.Digest(), imagetest.Stall))
	_, err := b.Pull(t.Context(), PullRequest{Ref: reg.Host + "/a:1"})
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "200ms") {
		t.Errorf("got %v", err)
	}
	if !strings.HasPrefix(err.Error(), "RegistryUnavailable: ") {
		t.Errorf("error %q does not begin with the text for the kubelet", err)
	}
}

func TestRefusedImageCleanup(t *testing.T) {
	file := imagetest.Files(t, imagetest.File("f", "x"))
	with := func(change func(*imagetest.Layer)) imagetest.Image {
		l := imagetest.Files(t, imagetest.File("f", "y"))
		change(&l)
		return imagetest.Image{Layers: []imagetest.Layer{file, l}}
	}
	many := imagetest.Image{}
	for range 6 {
		many.Layers = append(many.Layers, file)
	}
	for name, c := range map[string]struct {
		image imagetest.Image
		is    func(error) bool
	}{
		"encrypted":         {with(func(l *imagetest.Layer) { l.MediaType += "+encrypted" }), errdefs.IsNotImplemented},
		"foreign":           {with(func(l *imagetest.Layer) { l.URLs = []string{"https://example.com/layer"} }), errdefs.IsNotImplemented},
		"unknown type":      {with(func(l *imagetest.Layer) { l.MediaType = "application/x-thing" }), errdefs.IsInvalidArgument},
		"wrong diff id":     {imagetest.Image{Layers: []imagetest.Layer{file}, DiffIDs: []digest.Digest{digest.FromString("x")}}, errdefs.IsInvalidArgument},
		"too many diff ids": {imagetest.Image{Layers: []imagetest.Layer{file}, DiffIDs: []digest.Digest{file.DiffID, file.DiffID}}, errdefs.IsInvalidArgument},
		"escape":            {imagetest.Image{Layers: []imagetest.Layer{file, imagetest.Files(t, imagetest.File("../../f", ""))}}, errdefs.IsInvalidArgument},
		"layers":            {many, errdefs.IsInvalidArgument},
		"invalid config":    {imagetest.Image{Layers: []imagetest.Layer{file}, RawConfig: []byte("{")}, func(err error) bool { return err != nil }},
	} {
		t.Run(name, func(t *testing.T) {
			reg := imagetest.NewRegistry(t)
			b := newBed(t, reg)
			b.cfg.Limits.Layers = 5
			b.restart(t)
			reg.Push("a", "1", c.image)
			if _, err := b.Pull(t.Context(), PullRequest{Ref: reg.Host + "/a:1"}); !c.is(err) {
				t.Errorf("got %v", err)
			}
			if n := b.layerCount(t); n > 0 {
				t.Errorf("got %d layers, want none", n)
			}
			equal(t, "images", len(names(t, b.Manager.dir(imagesDir))), 0)
		})
	}
}

func TestRegistryErrors(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	reg.Push("a", "1", three(t))
	dead := imagetest.DeadHost(t)
	for ref, is := range map[string]func(error) bool{
		reg.Host + "/a:2":        errdefs.IsNotFound,
		reg.Host + "/b:1":        errdefs.IsNotFound,
		dead + "/a:1":            errdefs.IsUnavailable,
		"":                       errdefs.IsInvalidArgument,
		"UPPER/case":             errdefs.IsInvalidArgument,
		"sha256:" + noise(64):    errdefs.IsInvalidArgument,
		reg.Host + "/a@sha256:1": errdefs.IsInvalidArgument,
		reg.Host + "/a@" + digest.FromString("none").String(): errdefs.IsNotFound,
	} {
		if _, err := b.Pull(t.Context(), PullRequest{Ref: ref}); !is(err) {
			t.Errorf("%q: got %v", ref, err)
		}
	}
	reg.Set(imagetest.Faults{Down: true})
	if _, err := b.Pull(t.Context(), PullRequest{Ref: reg.Host + "/a:1"}); !errors.Is(err, pull.ErrRegistryUnavailable) {
		t.Errorf("got %v", err)
	}
}
