package kubelet

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	pinned = "registry.k8s.io/pause:3.9"
	unused = "gcr.io/k8s-staging-cri-tools/test-image-1:latest"
)

// testImageGarbage puts the kubelet under the pressure of a disk with less room
// than it wants: it removes images that nobody uses. Static pods it spares.
func testImageGarbage(t *testing.T, n *node) {
	for _, ref := range []string{pinned, unused} {
		if _, err := n.img.PullImage(t.Context(), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: ref}}); err != nil {
			t.Fatal(err)
		}
	}
	before := n.identities(t, "full", "streams", "imagevolume")
	extra := n.kubelet.extra
	n.restartKubelet(t, map[string]any{
		"imageMinimumGCAge": "1ms",
		"evictionHard":      map[string]string{"nodefs.available": "99.99%", "imagefs.available": "99.99%"},
	})
	eventually(t, 60*time.Second, func() error {
		tags, err := n.imageTags(t)
		if err != nil {
			return err
		}
		if slices.Contains(tags, unused) {
			return fmt.Errorf("still there, of %v", tags)
		}
		for _, kept := range []string{pinned, busybox, volumeImage} {
			if !slices.Contains(tags, kept) {
				t.Fatalf("%s was removed, which is pinned or in use; there are %v", kept, tags)
			}
		}
		return nil
	})
	n.restartKubelet(t, extra)
	n.mustBeSame(t, before, "after-pressure", "full", "streams", "imagevolume")
}

func (n *node) imageTags(t *testing.T) (tags []string, err error) {
	t.Helper()
	list, err := n.img.ListImages(t.Context(), &cri.ListImagesRequest{})
	for _, i := range list.GetImages() {
		tags = append(tags, i.GetRepoTags()...)
	}
	if err == nil && len(tags) == 0 {
		err = errors.New("no images at all")
	}
	return tags, err
}
