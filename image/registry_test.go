package image

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/criserver/criserver/image/internal/imagetest"
	"github.com/criserver/criserver/internal/ids"
)

// TestDuplicateLayerRefused pulls an image that lists a layer twice. The registry refuses the blob.
// The second one of the two must not wait for the first one.
func TestDuplicateLayerRefused(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	b.cfg.ProgressWindow = 5 * time.Minute
	b.restart(t)
	twice := imagetest.Files(t, imagetest.File("dup", noise(1<<20)))
	reg.Push("a", "1", imagetest.Image{Layers: []imagetest.Layer{imagetest.Files(t, imagetest.File("f", "")), twice, twice}})
	reg.Set(onBlob(twice.Digest(), func(w http.ResponseWriter, _ *http.Request, _ []byte) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"errors":[{"code":"DENIED","message":"not for you"}]}`)
	}))
	began := time.Now()
	_, err := b.Pull(t.Context(), PullRequest{Ref: reg.Host + "/a:1"})
	if !errdefs.IsPermissionDenied(err) || !strings.Contains(err.Error(), "not for you") {
		t.Errorf("got error %v", err)
	}
	if d := time.Since(began); d > 2*time.Minute {
		t.Errorf("pull took %s", d)
	}
}

// TestConfigRefused runs a registry that refuses the config but not the layers.
func TestConfigRefused(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	img := three(t)
	reg.Push("a", "1", img)
	reg.Set(onBlob(img.ID(), func(w http.ResponseWriter, _ *http.Request, _ []byte) { w.WriteHeader(http.StatusForbidden) }))
	if _, err := b.Pull(t.Context(), PullRequest{Ref: reg.Host + "/a:1"}); !errdefs.IsPermissionDenied(err) {
		t.Errorf("got error %v", err)
	}
}

// TestPullBrokenConnections breaks the first connection for each blob, and answers the second
// request for the blob with an error.
func TestPullBrokenConnections(t *testing.T) {
	reg := imagetest.NewRegistry(t)
	b := newBed(t, reg)
	var layers []imagetest.Layer
	for range 3 {
		layers = append(layers, imagetest.Files(t, imagetest.File(ids.New(), noise(1<<20))))
	}
	reg.Push("a", "1", imagetest.Image{Layers: layers})
	var mu sync.Mutex
	requests := map[digest.Digest]int{}
	reg.Set(imagetest.Faults{Blob: func(w http.ResponseWriter, _ *http.Request, blob digest.Digest, content []byte) bool {
		mu.Lock()
		requests[blob]++
		n := requests[blob]
		mu.Unlock()
		switch n {
		case 1:
			imagetest.Truncate(w, content)
		case 2:
			w.WriteHeader(http.StatusBadGateway)
			return true
		}
		return false // the registry sends the complete blob
	}})
	b.pull(t, reg.Host+"/a:1")
	mu.Lock()
	defer mu.Unlock()
	for blob, n := range requests {
		if n != 3 {
			t.Errorf("got %d requests for blob %s, want 3", n, blob)
		}
	}
}

// TestManifestMediaType runs a registry that sends the same media type for all manifests.
func TestManifestMediaType(t *testing.T) {
	for _, mediaType := range []string{"application/octet-stream", "text/plain; charset=utf-8", "application/json", "invalid", "application/vnd.oci.image.manifest.v1+json; charset=utf-8"} {
		reg := imagetest.NewRegistry(t)
		b := newBed(t, reg)
		reg.Push("a", "1", three(t))
		reg.Set(imagetest.Faults{ManifestType: mediaType})
		if _, err := b.Pull(t.Context(), PullRequest{Ref: reg.Host + "/a:1"}); err != nil {
			t.Errorf("%s: %v", mediaType, err)
		}
	}
}
