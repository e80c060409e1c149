package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const volumeImage = "registry.test/volume:1"

// TestImageGarbageCollection checks that the kubelet removes unused images when the disk is fuller than a threshold,
// and keeps the images of containers and of image volumes.
func TestImageGarbageCollection(t *testing.T) {
	testCollection(t, map[string]any{"imageGCHighThresholdPercent": 50, "imageGCLowThresholdPercent": 40}, smallDisk*60/100)
}

// TestImageMaximumAge checks that the kubelet removes unused images that are older than imageMaximumGCAge from a disk
// that is nearly empty, and keeps the images of containers and of image volumes, which are as old.
func TestImageMaximumAge(t *testing.T) {
	testCollection(t, map[string]any{"imageMinimumGCAge": "1s", "imageMaximumGCAge": "2m"}, 0)
}

// testCollection checks that a kubelet with the options removes an unused image, if a file of a number of bytes is on
// the disk of the node. The kubelet collects images five minutes after its start, so the test prepares its node early,
// and continues after the tests that do not run in parallel.
func testCollection(t *testing.T, options map[string]any, ballast int) {
	t.Helper()
	n := addNode(t, NodeOptions{Disk: smallDisk, Kubelet: options})
	s := newSpace(t)
	s.apply(podOf("user", n.Name, fmt.Sprintf(`"volumes": [{"name": "image", "image": {"reference": %q}}]`, volumeImage),
		container("main", busybox, sleepScript, `"volumeMounts": [{"name": "image", "mountPath": "/image", "readOnly": true}]`)))
	s.ready("user")
	s.useOnce(n, nginx)
	if ballast > 0 {
		if out, err := n.Machine.Run(t.Context(), "fallocate", "-l", fmt.Sprint(ballast), "/var/lib/ballast"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	t.Parallel()
	eventually(t, 330*time.Second, func() error {
		images := n.images(t)
		if !strings.Contains(images, nginx) {
			return nil
		}
		time.Sleep(time.Second)
		return fmt.Errorf("images of the node: %s, want no %s", images, nginx)
	})
	if images := n.images(t); !strings.Contains(images, busybox) || !strings.Contains(images, volumeImage) {
		t.Errorf("images after the collection: %s, want %s and %s", images, busybox, volumeImage)
	}
	s.want("file of the image volume", s.sh("user", "cat /image/data/file"), "from the image")
	s.apply(web("next", n.Name, "", "")) // pulls the image again
	s.ready("next")
}
