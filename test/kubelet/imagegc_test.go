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

// testImageGarbage configures thresholds below the usage of the disk, so that the
// kubelet removes unused images. The kubelet does not evict static pods.
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
			return fmt.Errorf("the unused image still exists; images: %v", tags)
		}
		for _, kept := range []string{pinned, busybox, volumeImage} {
			if !slices.Contains(tags, kept) {
				t.Fatalf("image %s was removed although it is pinned or in use; images: %v", kept, tags)
			}
		}
		return nil
	})
	n.restartKubelet(t, extra)
	n.checkUnchanged(t, before, "after-pressure", "full", "streams", "imagevolume")
}

func (n *node) imageTags(t *testing.T) (tags []string, err error) {
	t.Helper()
	list, err := n.img.ListImages(t.Context(), &cri.ListImagesRequest{})
	for _, i := range list.GetImages() {
		tags = append(tags, i.GetRepoTags()...)
	}
	if err == nil && len(tags) == 0 {
		err = errors.New("the daemon has no images")
	}
	return tags, err
}
