package container

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
)

func TestMountOptionsOfTheHandler(t *testing.T) {
	options := map[string][]string{"able": {"rro", "noexec"}, "poor": {"ro"}}
	m := &Manager{cfg: Config{MountOptions: func(handler string) []string { return options[handler] }}}
	for name, tc := range map[string]struct {
		handler string
		mount   *cri.Mount
		says    string // "" for no error
	}{
		"rro":                 {"able", &cri.Mount{RecursiveReadOnly: true}, ""},
		"rro unable":          {"poor", &cri.Mount{RecursiveReadOnly: true}, "recursive_read_only"},
		"rro unknown":         {"mute", &cri.Mount{RecursiveReadOnly: true}, "recursive_read_only"},
		"option":              {"able", &cri.Mount{MountOptions: []string{"noexec"}}, ""},
		"option unable":       {"poor", &cri.Mount{MountOptions: []string{"noexec"}}, `"noexec"`},
		"option of who knows": {"mute", &cri.Mount{MountOptions: []string{"noexec"}}, ""},
		"nothing asked for":   {"poor", &cri.Mount{}, ""},
	} {
		err := m.checkMountOptions(tc.handler, &cri.ContainerConfig{Mounts: []*cri.Mount{{}, tc.mount}})
		if tc.says == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), "config.mounts[1]") {
			t.Errorf("%s: %v", name, err)
		}
		// The kubelet knows this one by its word.
		if errors.Is(err, crierrors.ErrRROUnsupported) != tc.mount.GetRecursiveReadOnly() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEffectiveMounts(t *testing.T) {
	c := &cri.ContainerConfig{Mounts: []*cri.Mount{
		{HostPath: "/h", ContainerPath: "/a"}, {Image: &cri.ImageSpec{Image: "i:1"}, ContainerPath: "/b"},
	}}
	got := effectiveMounts(c, map[int]string{1: "sha256:1"})
	if len(got) != 2 || got[0] != c.Mounts[0] || !got[1].GetReadonly() || got[1].GetImage().GetImageRef() != "sha256:1" || got[1].GetImage().GetImage() != "i:1" {
		t.Errorf("got %v", got)
	}
	if c.Mounts[1].GetReadonly() || c.Mounts[1].GetImage().GetImageRef() != "" {
		t.Error("the request was changed")
	}
}

// TestMountPathsAreClean has paths that a runtime could read in another way than the
// daemon, which looks for what lies below them.
func TestMountPathsAreClean(t *testing.T) {
	m := &Manager{}
	for path, want := range map[string]string{"/a/../b": "/b", "/a//b/": "/a/b", "/../etc": "/etc"} {
		r := &cri.Mount{ContainerPath: path, HostPath: t.TempDir()}
		host, err := m.hostMount(t.Context(), r)
		if err != nil || host.Destination != want {
			t.Errorf("%s: %q, %v", path, host.Destination, err)
		}
		if got := imageMount(r, "/x").Destination; got != want {
			t.Errorf("image at %s: %q", path, got)
		}
	}
}
