package system

import (
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestImageOf120Layers(t *testing.T) {
	n := newNode(t, "layers", 61)
	n.Pull(t, "registry.test/layers:120")
	p := n.RunPod(t, podConfig("layers"))
	id := n.CreateContainer(t, p, containerConfig(p, "c", "registry.test/layers:120", "sleep", "1000"))
	n.StartContainer(t, id)
	st, err := n.ImageService.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: "registry.test/layers:120"}, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(st.GetInfo()["info"], `"diffID"`); got < 120 {
		t.Errorf("layers in the verbose status: got %d, want at least 120", got)
	}
	if got := n.Exec(t, id, "sh", "-c", "ls /layers | wc -l; cat /layer"); got != "119\n120" {
		t.Errorf("the container sees %q: want a file of each layer but the first, and the uppermost layer's content", got)
	}
}

func TestHeavyImage(t *testing.T) {
	if testing.Short() {
		t.Skip("-short omits the image of half a gigabyte")
	}
	n := newNode(t, "heavy", 62)
	begun := time.Now()
	id := n.Pull(t, "registry.test/heavy:1")
	t.Logf("pulled in %s", time.Since(begun).Round(time.Millisecond))
	st, err := n.ImageService.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: id}})
	if err != nil {
		t.Fatal(err)
	}
	if size := st.GetImage().GetSize(); size < 500<<20 {
		t.Errorf("size: got %d bytes, want at least %d", size, 500<<20)
	}
	fs, err := n.ImageService.ImageFsInfo(t.Context(), &cri.ImageFsInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if used := fs.GetImageFilesystems()[0].GetUsedBytes().GetValue(); used < 500<<20 {
		t.Errorf("usage of the store: got %d bytes, want at least %d", used, 500<<20)
	}
	p := n.RunPod(t, podConfig("heavy"))
	c := n.CreateContainer(t, p, containerConfig(p, "c", "registry.test/heavy:1", "sleep", "1000"))
	n.StartContainer(t, c)
	if _, err := n.ImageService.RemoveImage(t.Context(), &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: id}}); err == nil {
		t.Error("remove the image of a running container succeeded, want an error")
	}
}
