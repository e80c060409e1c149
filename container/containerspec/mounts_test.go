package containerspec

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/oci"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
)

func parseMounts(node *Node, mounts ...*cri.Mount) (*Spec, error) {
	c := testConfig()
	c.Mounts = mounts
	return Parse(Request{Config: c, Pod: testPod(), Node: node})
}

func TestMountRules(t *testing.T) {
	image := &cri.ImageSpec{Image: "i"}
	for name, tc := range map[string]struct {
		mount *cri.Mount
		says  string
	}{
		"relative destination": {&cri.Mount{ContainerPath: "a", HostPath: "/a"}, "container_path"},
		"NUL in destination":   {&cri.Mount{ContainerPath: "/a\x00", HostPath: "/a"}, "container_path"},
		"root":                 {&cri.Mount{ContainerPath: "/", HostPath: "/a"}, "container_path"},
		"root with dots":       {&cri.Mount{ContainerPath: "/a/../..", HostPath: "/a"}, "container_path"},
		"long destination":     {&cri.Mount{ContainerPath: "/" + strings.Repeat("a", 256), HostPath: "/"}, "container_path"},
		"long source":          {&cri.Mount{ContainerPath: "/a", HostPath: strings.Repeat("/a", 2048)}, "host_path"},
		"long sub-path":        {&cri.Mount{ContainerPath: "/a", Image: image, ImageSubPath: strings.Repeat("a", 256)}, "image_sub_path"},
		"source with ..":       {&cri.Mount{ContainerPath: "/a", HostPath: "/a/../b"}, "host_path"},
		"relative source":      {&cri.Mount{ContainerPath: "/a", HostPath: "a"}, "host_path"},
		"no source":            {&cri.Mount{ContainerPath: "/a"}, "host_path"},
		"image and path":       {&cri.Mount{ContainerPath: "/a", HostPath: "/a", Image: image}, "exclude each other"},
		"empty image":          {&cri.Mount{ContainerPath: "/a", Image: &cri.ImageSpec{}}, "image.image"},
		"sub-path with ..":     {&cri.Mount{ContainerPath: "/a", Image: image, ImageSubPath: "a/../b"}, "image_sub_path"},
		"image to the host":    {&cri.Mount{ContainerPath: "/a", Image: image, Propagation: 2}, "propagation"},
		"rro writable":         {&cri.Mount{ContainerPath: "/a", HostPath: "/a", RecursiveReadOnly: true}, "recursive_read_only"},
		"rro shared":           {&cri.Mount{ContainerPath: "/a", HostPath: "/a", Readonly: true, RecursiveReadOnly: true, Propagation: 2}, "recursive_read_only"},
		"propagation":          {&cri.Mount{ContainerPath: "/a", HostPath: "/a", Propagation: 9}, "propagation"},
		"option":               {&cri.Mount{ContainerPath: "/a", HostPath: "/a", MountOptions: []string{"suid"}}, "mount_options"},
	} {
		if _, err := parseMounts(nil, tc.mount); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "config.mounts[0]: ") || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A runtime could read these paths in another way than the daemon, so Parse cleans them.
	for path, want := range map[string]string{"/a/../b": "/b", "/a//b/": "/a/b", "/../etc": "/etc"} {
		s, err := parseMounts(nil, &cri.Mount{ContainerPath: path, HostPath: "/h"}, &cri.Mount{ContainerPath: path, Image: image})
		if err != nil || s.Mounts[0].Destination != want || s.Mounts[1].Destination != want {
			t.Errorf("%s: %+v, %v", path, s, err)
		}
	}
}

// TestSubPathWithoutImage checks that image_sub_path has no effect on mounts without an image. The kubelet sets
// image_sub_path for these mounts, too.
func TestSubPathWithoutImage(t *testing.T) {
	s, err := parseMounts(nil, &cri.Mount{ContainerPath: "/a", HostPath: "/volumes/sub", ImageSubPath: "sub"})
	if err != nil || s.Mounts[0].HostPath != "/volumes/sub" || s.Mounts[0].SubPath != "" {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestMountIDMappings(t *testing.T) {
	for name, tc := range map[string]struct {
		uids, gids []*cri.IDMapping
		says       string
	}{
		"none":     {nil, nil, ""},
		"both":     {mapping(0, 1000, 10), mapping(0, 2000, 10), ""},
		"uids":     {mapping(0, 1000, 10), nil, "need each other"},
		"gids":     {nil, mapping(0, 1000, 10), "need each other"},
		"length 0": {mapping(0, 1000, 0), mapping(0, 1000, 1), "uidMappings: element 0"},
		"overlap":  {mapping(0, 1000, 10), append(mapping(0, 1000, 10), mapping(5, 9000, 1)...), "gidMappings: element 1"},
	} {
		_, err := parseMounts(nil, &cri.Mount{ContainerPath: "/a", HostPath: "/a", UidMappings: tc.uids, GidMappings: tc.gids})
		if tc.says == "" && err != nil || tc.says != "" && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.says)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	image := &cri.Mount{ContainerPath: "/a", Image: &cri.ImageSpec{Image: "i"}, UidMappings: mapping(0, 1000, 10), GidMappings: mapping(0, 1000, 10)}
	if _, err := parseMounts(nil, image); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "config.mounts[0].uidMappings") {
		t.Errorf("an image with id mappings that are not the mappings of the pod: %v", err)
	}
}

func TestIDMappedMountsOfHandler(t *testing.T) {
	node := testNode(oci.Host{})
	node.IDMappedMounts = func() error { return errors.New("too old") }
	m := &cri.Mount{ContainerPath: "/a", HostPath: "/a", UidMappings: mapping(0, 1000, 10), GidMappings: mapping(0, 1000, 10)}
	if _, err := parseMounts(node, m); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "too old") {
		t.Errorf("with mappings: %v", err)
	}
	if _, err := parseMounts(node, &cri.Mount{ContainerPath: "/a", HostPath: "/a"}); err != nil {
		t.Errorf("without mappings: %v", err)
	}
}

func TestMountOptionsOfHandler(t *testing.T) {
	for name, tc := range map[string]struct {
		supported []string
		mount     *cri.Mount
		says      string // "" for no error
	}{
		"rro supported":              {[]string{"rro", "noexec"}, &cri.Mount{Readonly: true, RecursiveReadOnly: true}, ""},
		"rro not supported":          {[]string{"ro"}, &cri.Mount{Readonly: true, RecursiveReadOnly: true}, "recursive_read_only"},
		"rro without a report":       {nil, &cri.Mount{Readonly: true, RecursiveReadOnly: true}, "recursive_read_only"},
		"option supported":           {[]string{"rro", "noexec"}, &cri.Mount{MountOptions: []string{"noexec"}}, ""},
		"option not supported":       {[]string{"ro"}, &cri.Mount{MountOptions: []string{"noexec"}}, `"noexec"`},
		"option without a report":    {nil, &cri.Mount{MountOptions: []string{"noexec"}}, ""},
		"no option, nothing to wait": {[]string{"ro"}, &cri.Mount{}, ""},
	} {
		node := testNode(oci.Host{})
		node.MountOptions = func() []string { return tc.supported }
		tc.mount.ContainerPath, tc.mount.HostPath = "/b", "/b"
		_, err := parseMounts(node, &cri.Mount{ContainerPath: "/a", HostPath: "/a"}, tc.mount)
		if tc.says == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), "config.mounts[1]") {
			t.Errorf("%s: %v", name, err)
		}
		// The kubelet recognizes this error by its text.
		if errors.Is(err, crierrors.ErrRROUnsupported) != tc.mount.GetRecursiveReadOnly() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDeviceRules(t *testing.T) {
	for name, tc := range map[string]struct {
		device *cri.Device
		says   string
	}{
		"relative":        {&cri.Device{HostPath: "null"}, "host_path"},
		"..":              {&cri.Device{HostPath: "/dev/../dev/null"}, "host_path"},
		"container path":  {&cri.Device{HostPath: "/dev/null", ContainerPath: "null"}, "container_path"},
		"long path":       {&cri.Device{HostPath: "/dev/null", ContainerPath: "/" + strings.Repeat("a", 256)}, "container_path"},
		"permission x":    {&cri.Device{HostPath: "/dev/null", Permissions: "rx"}, "permissions"},
		"permission rr":   {&cri.Device{HostPath: "/dev/null", Permissions: "rr"}, "permissions"},
		"four characters": {&cri.Device{HostPath: "/dev/null", Permissions: "rwmr"}, "permissions"},
	} {
		c := testConfig()
		c.Devices = []*cri.Device{{HostPath: "/dev/zero"}, tc.device}
		if _, err := Parse(Request{Config: c, Pod: testPod()}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "config.devices[1]."+tc.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := testConfig()
	c.Devices = []*cri.Device{{HostPath: "/dev/zero", Permissions: "rw"}}
	if s, err := Parse(Request{Config: c, Pod: testPod()}); err != nil || s.Devices[0] != (Device{"/dev/zero", "/dev/zero", "rw"}) {
		t.Errorf("got %+v, %v", s, err)
	}
}
