package image

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/criserver/criserver/image/internal/imagetest"
)

// TestSHA512 pulls an image whose manifest has SHA-512 digests. The digest in a name and the diff
// IDs must be SHA-256 digests.
func TestSHA512(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	img := three(t)
	img.Algorithm = digest.SHA512
	reg.Push("a", "1", img)
	reg.Push("b", "1", three(t))
	other := b.pull(t, reg.Host+"/b:1")
	got := b.pull(t, reg.Host+"/a:1")
	equal(t, "id", got.ID, img.ID())
	byDigest := reg.Host + "/a@" + digest.SHA512.FromString(read(t, b.imageDir(got.ID), manifestFile)).String()
	if _, err := b.Pull(t.Context(), PullRequest{Ref: byDigest}); !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "want sha256") {
		t.Errorf("pull by SHA-512 digest: got %v", err)
	}
	for range 2 {
		for _, ref := range []string{got.ID.String(), got.ID.Encoded(), got.ID.Encoded()[:12], "sha512:" + got.ID.Encoded()[:12], reg.Host + "/a:1"} {
			if found, err := b.Get(ref); err != nil || found.ID != got.ID {
				t.Errorf("%s: %v, %v", ref, found.ID, err)
			}
		}
		if found, err := b.Get(other.ID.Encoded()[:12]); err != nil || found.ID != other.ID {
			t.Errorf("get other image: %v, %v", found.ID, err)
		}
		if found, err := b.Check(t.Context(), false); err != nil || len(found) > 0 {
			t.Errorf("got problems %+v, %v", found, err)
		}
		b.restart(t)
	}
	reg.Requests()
	b.pull(t, reg.Host+"/a:1")
	equal(t, "blobs fetched again", imagetest.Blobs(reg.Requests(), digest.SHA512.FromBytes(img.Layers[0].Blob)), 0)
	root, _ := b.mount(t, got)
	equal(t, "file", read(t, root, "etc/a"), "upper")

	img.DiffIDs = []digest.Digest{digest.SHA512.FromString("x"), digest.SHA512.FromString("x"), digest.SHA512.FromString("x")}
	reg.Push("c", "1", img)
	if _, err := b.Pull(t.Context(), PullRequest{Ref: reg.Host + "/c:1"}); !errdefs.IsNotImplemented(err) || !strings.Contains(err.Error(), "sha512") {
		t.Errorf("pull image with SHA-512 diff ids: got %v", err)
	}
}

// TestRefusedPullKeepsLayers runs a registry that refuses the last blob. The complete layers must
// be kept for a pull with another credential.
func TestRefusedPullKeepsLayers(t *testing.T) {
	for _, code := range []int{http.StatusForbidden, http.StatusUnauthorized, http.StatusNotFound, http.StatusBadRequest, http.StatusUnavailableForLegalReasons} {
		reg := imagetest.NewRegistry(t)
		b := newBed(t, reg)
		good, last := imagetest.Files(t, imagetest.File("good", "g")), imagetest.Files(t, imagetest.File("last", "l"))
		reg.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{good, last}})
		reg.Set(onBlob(last.Digest(), func(w http.ResponseWriter, _ *http.Request, _ []byte) {
			if err := waitFor("the other layer", func() bool { _, ok := b.layers.Get(good.DiffID); return ok }); err != nil {
				t.Error(err) // not Fatal, because this is not the goroutine of the test
			}
			http.Error(w, "no", code)
		}))
		if _, err := b.Pull(t.Context(), PullRequest{Ref: reg.Host + "/a:1"}); err == nil {
			t.Errorf("status %d: got no error", code)
		}
		equalList(t, http.StatusText(code)+": layers", names(t, filepath.Join(b.cfg.Root, layersDir)), []string{good.DiffID.Encoded()})
	}
}
