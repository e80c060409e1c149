package podspec

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func userOptions(mode cri.NamespaceMode, ids ...*cri.IDMapping) *cri.UserNamespace {
	return &cri.UserNamespace{Mode: mode, Uids: ids, Gids: ids}
}

func idMap(container, host, length uint32) *cri.IDMapping {
	return &cri.IDMapping{ContainerId: container, HostId: host, Length: length}
}

// userPod returns a request for a user namespace as the kubelet sends it.
func userPod() *cri.PodSandboxConfig {
	c := podConfig()
	namespaceOptions(c).UsernsOptions = userOptions(cri.NamespaceMode_POD, idMap(0, 327680, 65536))
	return c
}

func TestNamespaceModes(t *testing.T) {
	rules{
		"network of a container": {func(c *cri.PodSandboxConfig) { namespaceOptions(c).Network = cri.NamespaceMode_CONTAINER }, "namespace_options.network"},
		"IPC of a target":        {func(c *cri.PodSandboxConfig) { namespaceOptions(c).Ipc = cri.NamespaceMode_TARGET }, "namespace_options.ipc"},
		"PID of a target":        {func(c *cri.PodSandboxConfig) { namespaceOptions(c).Pid = cri.NamespaceMode_TARGET }, "namespace_options.pid"},
		"PID of the host":        {func(c *cri.PodSandboxConfig) { namespaceOptions(c).Pid = cri.NamespaceMode_NODE }, ""},
		"PID of the pod":         {func(c *cri.PodSandboxConfig) { namespaceOptions(c).Pid = cri.NamespaceMode_POD }, ""},
	}.check(t, testNode())
	node := testNode()
	node.Pause = false
	rules{
		"PID of the pod without a pause": {func(c *cri.PodSandboxConfig) { namespaceOptions(c).Pid = cri.NamespaceMode_POD }, "namespace_options.pid"},
	}.check(t, node)

	if got := mustParse(t, podConfig()).Namespaces; got != (Namespaces{}) {
		t.Errorf("PID namespaces of containers: got %+v", got)
	}
	c := podConfig()
	c.Linux = nil
	if got := mustParse(t, c).Namespaces; got != (Namespaces{SharedPID: true}) {
		t.Errorf("no options: got %+v", got)
	}
	c = podConfig()
	o := namespaceOptions(c)
	o.Network, o.Ipc = cri.NamespaceMode_NODE, cri.NamespaceMode_NODE
	if got := mustParse(t, c).Namespaces; got != (Namespaces{HostNetwork: true, HostIPC: true}) {
		t.Errorf("namespaces of the host: got %+v", got)
	}
}

func TestUserNamespace(t *testing.T) {
	const pod, node = cri.NamespaceMode_POD, cri.NamespaceMode_NODE
	good := idMap(0, 65536, 65536)
	set := func(u *cri.UserNamespace) func(*cri.PodSandboxConfig) {
		return func(c *cri.PodSandboxConfig) { namespaceOptions(c).UsernsOptions = u }
	}
	rules{
		"pod":               {set(userOptions(pod, good)), ""},
		"node":              {set(userOptions(node)), ""},
		"node with mapping": {set(userOptions(node, good)), "userns_options.mode"},
		"container":         {set(userOptions(cri.NamespaceMode_CONTAINER, good)), "userns_options.mode"},
		"target":            {set(userOptions(cri.NamespaceMode_TARGET)), "userns_options.mode"},
		"unknown mode":      {set(userOptions(17)), "userns_options.mode"},
		"no mapping":        {set(userOptions(pod)), "userns_options.uids"},
		"two mappings":      {set(userOptions(pod, good, idMap(65536, 1<<20, 1))), "userns_options.uids"},
		"no gids":           {set(&cri.UserNamespace{Mode: pod, Uids: []*cri.IDMapping{good}}), "userns_options.gids"},
		"other gids": {set(&cri.UserNamespace{
			Mode: pod, Uids: []*cri.IDMapping{good}, Gids: []*cri.IDMapping{idMap(0, 1000, 65536)},
		}), "userns_options.gids"},
		"no mapping of root": {set(userOptions(pod, idMap(1, 65536, 65536))), "uids[0].container_id"},
		"length 0":           {set(userOptions(pod, idMap(0, 65536, 0))), "length 0"},
		"past the last ID":   {set(userOptions(pod, idMap(0, 1<<32-1, 2))), "host ids"},
		"host network":       {func(c *cri.PodSandboxConfig) { set(userOptions(pod, good))(c); namespaceOptions(c).Network = node }, ""},
		"host PID":           {func(c *cri.PodSandboxConfig) { set(userOptions(pod, good))(c); namespaceOptions(c).Pid = node }, "namespace_options.pid"},
		"host IPC":           {func(c *cri.PodSandboxConfig) { set(userOptions(pod, good))(c); namespaceOptions(c).Ipc = node }, "namespace_options.ipc"},
	}.check(t, testNode())
	if uid, gid := mustParse(t, userPod()).Namespaces.Root(); uid != 327680 || gid != 327680 {
		t.Errorf("root is %d:%d on the host", uid, gid)
	}
	if uid, gid := mustParse(t, podConfig()).Namespaces.Root(); uid != 0 || gid != 0 {
		t.Errorf("without a user namespace, root is %d:%d on the host", uid, gid)
	}
}

func TestUserNamespaceWithoutSupport(t *testing.T) {
	for name, change := range map[string]func(*Node){
		"no probe": func(n *Node) { n.UserNamespaces = nil },
		"no pause": func(n *Node) { n.Pause = false },
		"refused":  func(n *Node) { n.UserNamespaces = func(string) error { return errors.New("the kernel is too old") } },
	} {
		node := testNode()
		change(&node)
		if _, err := Parse(userPod(), "runc", node); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("%s: got error %v", name, err)
		}
		if _, err := Parse(podConfig(), "runc", node); err != nil {
			t.Errorf("%s: pod without a user namespace: got error %v", name, err)
		}
		if _, err := ParseStored(userPod(), "runc"); err != nil {
			t.Errorf("%s: stored request: got error %v", name, err)
		}
	}
}

// TestUserNamespaceWithHostNetwork checks that support for pods with their own network and support for pods with the
// network of the host are separate.
func TestUserNamespaceWithHostNetwork(t *testing.T) {
	host := userPod()
	namespaceOptions(host).Network = cri.NamespaceMode_NODE
	if n := mustParse(t, host).Namespaces; !n.HostNetwork || n.User == nil {
		t.Errorf("got namespaces %+v, want the network of the host and a user namespace", n)
	}
	node := testNode()
	node.HostNetworkUserNamespaces = func(string) error { return errors.New("cannot mount /sys") }
	if _, err := Parse(host, "runc", node); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "cannot mount /sys") {
		t.Errorf("host network without support: got error %v", err)
	}
	if _, err := Parse(userPod(), "runc", node); err != nil {
		t.Errorf("own network: got error %v", err)
	}
	node = testNode()
	node.UserNamespaces = nil
	if _, err := Parse(host, "runc", node); err != nil {
		t.Errorf("host network with support: got error %v", err)
	}
}
