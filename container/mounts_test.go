package container

import (
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestEffectiveMounts(t *testing.T) {
	c := &cri.ContainerConfig{Mounts: []*cri.Mount{
		{HostPath: "/h", ContainerPath: "/a"}, {Image: &cri.ImageSpec{Image: "i:1"}, ContainerPath: "/b"},
	}}
	got := effectiveMounts(c, map[int]string{1: "sha256:1"})
	if len(got) != 2 || got[0] != c.Mounts[0] || !got[1].GetReadonly() || got[1].GetImage().GetImageRef() != "sha256:1" || got[1].GetImage().GetImage() != "i:1" {
		t.Errorf("got %v", got)
	}
	if got := effectiveMounts(c, map[int]string{0: "sha256:1", 7: "sha256:2"}); got[0].GetImage() != nil || got[1].GetReadonly() {
		t.Errorf("of a damaged record: %v", got)
	}
	if c.Mounts[1].GetReadonly() || c.Mounts[1].GetImage().GetImageRef() != "" {
		t.Error("effectiveMounts has changed the request")
	}
}
