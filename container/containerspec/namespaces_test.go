package containerspec

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/userns"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func mapping(container, host, length uint32) []*cri.IDMapping {
	return []*cri.IDMapping{{ContainerId: container, HostId: host, Length: length}}
}

func podWithUserNamespace(u *cri.UserNamespace) *cri.PodSandboxConfig {
	p := testPod()
	p.Linux = &cri.LinuxPodSandboxConfig{
		SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{UsernsOptions: u}},
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
		"none":                             {pod: nil, container: nil},
		"the pod's":                        {pod: pod, container: pod},
		"none in a pod with one":           {pod: pod, container: nil},
		"the host's in both":               {pod: node, container: node},
		"the host's in the container":      {pod: nil, container: node},
		"another one":                      {pod: pod, container: other, says: "userns_options must be the same"},
		"the host's in a pod with one":     {pod: pod, container: node, says: "userns_options must be the same"},
		"one in a pod with the host's":     {pod: node, container: pod, says: "userns_options must be the same"},
		"the host's with mappings":         {pod: node, container: &cri.UserNamespace{Mode: cri.NamespaceMode_NODE, Uids: pod.Uids}, says: "userns_options.mode is NODE"},
		"mode CONTAINER":                   {pod: pod, container: &cri.UserNamespace{Mode: cri.NamespaceMode_CONTAINER}, says: "userns_options.mode"},
		"mode TARGET":                      {pod: nil, container: &cri.UserNamespace{Mode: cri.NamespaceMode_TARGET}, says: "userns_options.mode"},
		"PID namespace of the host in one": {pod: pod, container: pod, pid: cri.NamespaceMode_NODE, says: "namespace_options.pid"},
	} {
		c := testConfig()
		c.Linux.SecurityContext.NamespaceOptions = &cri.NamespaceOption{Pid: tc.pid, UsernsOptions: tc.container}
		_, err := Parse(Request{Config: c, Pod: podWithUserNamespace(tc.pod)})
		if tc.says == "" && err != nil || tc.says != "" && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.says)) {
			t.Errorf("%s: got %v, want %q", name, err, tc.says)
		}
	}
}

func TestCheckMapped(t *testing.T) {
	maps := UserMaps(podWithUserNamespace(&cri.UserNamespace{
		Mode: cri.NamespaceMode_POD, Uids: mapping(0, 5000, 100), Gids: mapping(0, 5000, 100),
	}))
	for name, tc := range map[string]struct {
		id Identity
		ok bool
	}{
		"root":                {Identity{}, true},
		"last ids":            {Identity{UID: 99, GID: 99, Groups: []uint32{1, 99}}, true},
		"user":                {Identity{UID: 100}, false},
		"group":               {Identity{GID: 100}, false},
		"supplementary group": {Identity{Groups: []uint32{0, 100}}, false},
	} {
		if err := tc.id.CheckMapped(maps); (err == nil) != tc.ok || err != nil && !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", name, err)
		}
		if err := tc.id.CheckMapped(userns.Maps{}); err != nil {
			t.Errorf("%s, without a user namespace: %v", name, err)
		}
	}
}
