package msgdiff

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// config returns a message with fields of all kinds.
func config() *cri.ContainerConfig {
	return &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: "a"}, Command: []string{"sh"}, Labels: map[string]string{"x": "1", "y": "2"},
		Envs:   []*cri.KeyValue{{Key: "SECRET", Value: []byte("s3cret")}},
		Mounts: []*cri.Mount{{ContainerPath: "/a"}, {ContainerPath: "/dev/termination-log", HostPath: "/pods/1/a1"}},
		Linux:  &cri.LinuxContainerConfig{Resources: &cri.LinuxContainerResources{CpuShares: 2}},
	}
}

func TestFields(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*cri.ContainerConfig)
		want   []string
	}{
		"no difference":   {func(*cri.ContainerConfig) {}, nil},
		"a host path":     {func(c *cri.ContainerConfig) { c.Mounts[1].HostPath = "/pods/1/b2" }, []string{"mounts[1].host_path"}},
		"a list's length": {func(c *cri.ContainerConfig) { c.Mounts = c.Mounts[:1] }, []string{"mounts"}},
		"a string list":   {func(c *cri.ContainerConfig) { c.Command[0] = "ash" }, []string{"command[0]"}},
		"a secret":        {func(c *cri.ContainerConfig) { c.Envs[0].Value = []byte("other") }, []string{"envs[0].value"}},
		"a deep number":   {func(c *cri.ContainerConfig) { c.Linux.Resources.CpuShares = 3 }, []string{"linux.resources.cpu_shares"}},
		"a whole message": {func(c *cri.ContainerConfig) { c.Linux = nil }, []string{"linux"}},
		"a map": {
			func(c *cri.ContainerConfig) { c.Labels = map[string]string{"x": "3", "z": "2"} },
			[]string{`labels["x"]`, `labels["y"]`, `labels["z"]`},
		},
		"an empty message": {func(c *cri.ContainerConfig) { c.Image = &cri.ImageSpec{} }, []string{"image"}},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := config(), config()
			tc.change(b)
			for _, got := range [][]string{Fields(a, b), Fields(b, a)} {
				if !slices.Equal(got, tc.want) {
					t.Errorf("got %q, want %q", got, tc.want)
				}
			}
			if equal := proto.Equal(a, b); equal != (len(tc.want) == 0) {
				t.Errorf("proto.Equal returns %t", equal)
			}
		})
	}
}

func TestManyFields(t *testing.T) {
	a, b := config(), config()
	for i := range 100 {
		b.Labels[fmt.Sprint(i)+strings.Repeat("k", 1000)] = "v"
	}
	got := Fields(a, b)
	if len(got) != maxFields+1 || got[maxFields] != "…" || len(got[0]) > 2*maxKey {
		t.Errorf("got %d fields: %q", len(got), got)
	}
}
