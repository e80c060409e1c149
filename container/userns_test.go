package container

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/oci"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func mapping(container, host, length uint32) []*cri.IDMapping {
	return []*cri.IDMapping{{ContainerId: container, HostId: host, Length: length}}
}

// podWith is a ready pod whose namespaces are as asked.
func podWith(u *cri.UserNamespace) Pod {
	p := Pod{Ready: true, Config: &cri.PodSandboxConfig{Linux: &cri.LinuxPodSandboxConfig{
		SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{UsernsOptions: u}},
	}}}
	if u.GetMode() == cri.NamespaceMode_POD && u != nil {
		p.UserNS = "/ns/user"
	}
	return p
}

func TestUserNamespaceIsThePods(t *testing.T) {
	pod := &cri.UserNamespace{Mode: cri.NamespaceMode_POD, Uids: mapping(0, 1000, 100), Gids: mapping(0, 1000, 100)}
	other := &cri.UserNamespace{Mode: cri.NamespaceMode_POD, Uids: mapping(0, 2000, 100), Gids: mapping(0, 2000, 100)}
	node := &cri.UserNamespace{Mode: cri.NamespaceMode_NODE}
	for name, tc := range map[string]struct {
		pod, container *cri.UserNamespace
		pid            cri.NamespaceMode
		says           string
	}{
		"none":               {pod: nil, container: nil},
		"the pod's":          {pod: pod, container: pod},
		"none says the same": {pod: pod, container: nil},
		"host's, said twice": {pod: node, container: node},
		"host's, said once":  {pod: nil, container: node},
		"another's":          {pod: pod, container: other, says: "userns_options must be the same"},
		"host's in a pod's":  {pod: pod, container: node, says: "userns_options must be the same"},
		"own in the host's":  {pod: node, container: pod, says: "userns_options must be the same"},
		"host's with maps":   {pod: node, container: &cri.UserNamespace{Mode: cri.NamespaceMode_NODE, Uids: pod.Uids}, says: "userns_options.mode is NODE"},
		"the container's":    {pod: pod, container: &cri.UserNamespace{Mode: cri.NamespaceMode_CONTAINER}, says: "userns_options.mode"},
		"a target's":         {pod: nil, container: &cri.UserNamespace{Mode: cri.NamespaceMode_TARGET}, says: "userns_options.mode"},
		"host's processes":   {pod: pod, container: pod, pid: cri.NamespaceMode_NODE, says: "namespace_options.pid"},
	} {
		c := &cri.ContainerConfig{Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Pid: tc.pid, UsernsOptions: tc.container},
		}}}
		err := checkUserNamespace(c, podWith(tc.pod))
		if tc.says == "" && err != nil || tc.says != "" && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.says)) {
			t.Errorf("%s: got %v, want %q", name, err, tc.says)
		}
	}
}

func TestUsersHaveToBeMapped(t *testing.T) {
	p := podWith(&cri.UserNamespace{Mode: cri.NamespaceMode_POD, Uids: mapping(0, 5000, 100), Gids: mapping(0, 5000, 100)})
	for name, tc := range map[string]struct {
		id identity
		ok bool
	}{
		"root":  {identity{}, true},
		"last":  {identity{uid: 99, gid: 99, groups: []uint32{1, 99}}, true},
		"user":  {identity{uid: 100}, false},
		"group": {identity{gid: 100}, false},
		"more":  {identity{groups: []uint32{0, 100}}, false},
	} {
		if err := checkMapped(tc.id, p); (err == nil) != tc.ok || err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
		if err := checkMapped(tc.id, podWith(nil)); err != nil {
			t.Errorf("%s, in a pod without: %v", name, err)
		}
	}
	if got := rootOf(p.Config); got != (owner{5000, 5000}) {
		t.Errorf("root is %v", got)
	}
	if got := rootOf(podWith(nil).Config); got != (owner{}) {
		t.Errorf("the host's root is %v", got)
	}
}

func TestMappingsOfMounts(t *testing.T) {
	for name, tc := range map[string]struct {
		uids, gids []*cri.IDMapping
		says       string
	}{
		"none":     {nil, nil, ""},
		"both":     {mapping(0, 1000, 10), mapping(0, 2000, 10), ""},
		"one":      {mapping(0, 1000, 10), nil, "need each other"},
		"other":    {nil, mapping(0, 1000, 10), "need each other"},
		"length 0": {mapping(0, 1000, 0), mapping(0, 1000, 1), "uidMappings: element 0"},
		"overlap":  {mapping(0, 1000, 10), append(mapping(0, 1000, 10), mapping(5, 9000, 1)...), "gidMappings: element 1"},
	} {
		err := checkMappings(&cri.Mount{UidMappings: tc.uids, GidMappings: tc.gids})
		if tc.says == "" && err != nil || tc.says != "" && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.says)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a handler cannot do is an error before the runtime is asked, which might
// leave the mappings out.
func TestMappedMountsOfAHandlerWithout(t *testing.T) {
	asked := &cri.Mount{UidMappings: mapping(0, 1000, 10), GidMappings: mapping(0, 1000, 10)}
	m := &Manager{cfg: Config{UserNamespaces: func(string) error { return errors.New("too old") }}}
	if err := m.mapMount(&oci.Mount{}, asked, podWith(nil)); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "too old") {
		t.Error(err)
	}
	if err := m.mapMount(&oci.Mount{}, &cri.Mount{}, podWith(nil)); err != nil {
		t.Errorf("without mappings: %v", err)
	}
	image := &cri.ContainerConfig{Mounts: []*cri.Mount{{Image: &cri.ImageSpec{Image: "i"}, UidMappings: asked.UidMappings, GidMappings: asked.GidMappings}}}
	if err := m.mapMounts([]oci.Mount{{}}, image, podWith(nil)); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an image with maps that are not the pod's: %v", err)
	}
}

func TestDirectoryOfAUserNamespacesRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving files away needs root")
	}
	for root, want := range map[owner]os.FileMode{{}: 0o700, {5000, 6000}: 0o710} {
		dir := t.TempDir() + "/d"
		if err := makeDirFor(dir, root); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != want {
			t.Errorf("%v: mode %v, %v", root, info.Mode(), err)
		}
	}
}
