package podspec

import (
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestCgroupParent(t *testing.T) {
	set := func(parent string) func(*cri.PodSandboxConfig) {
		return func(c *cri.PodSandboxConfig) { c.Linux.CgroupParent = parent }
	}
	rules{
		"slice":         {set("a.slice"), "cgroup_parent"},
		"above root":    {set("/a/../.."), "cgroup_parent"},
		"root":          {set("/"), "cgroup_parent"},
		"name too long": {set("/" + strings.Repeat("a", 256)), "cgroup_parent"},
		"line break":    {set("/a\nb"), "cgroup_parent"},
	}.check(t, testNode())
	systemd := testNode()
	systemd.CgroupDriver = Systemd
	rules{
		"no slice":       {set("kubepods"), "cgroup_parent"},
		"path":           {set("/kubepods/pod1"), "cgroup_parent"},
		"empty name":     {set("-.slice"), "cgroup_parent"},
		"only suffix":    {set(".slice"), "cgroup_parent"},
		"suffix in path": {set("/kubepods.slice/.slice"), "cgroup_parent"},
		"two dashes":     {set("a--b.slice"), "cgroup_parent"},
		"trailing dash":  {set("a-.slice"), "cgroup_parent"},
		"parent":         {set("../a.slice"), "cgroup_parent"},
		"colon":          {set("a:b.slice"), "cgroup_parent"},
		"slice":          {set("kubepods-burstable-pod1_2.slice"), ""},
		"path of slices": {set("/kubepods.slice/kubepods-pod1.slice"), ""},
	}.check(t, systemd)

	for _, tt := range []struct {
		node         Node
		parent, want string
	}{
		{testNode(), "/kubepods/burstable/pod1", "/kubepods/burstable/pod1"},
		{testNode(), "kubepods/pod1/", "/kubepods/pod1"},
		{testNode(), "", ""},
		{systemd, "kubepods-burstable-pod1_2.slice", "kubepods-burstable-pod1_2.slice"},
		{systemd, "/kubepods.slice/kubepods-pod1.slice", "kubepods-pod1.slice"},
	} {
		c := podConfig()
		set(tt.parent)(c)
		if spec, err := Parse(c, "", tt.node); err != nil || spec.CgroupParent != tt.want {
			t.Errorf("%s %q: got %+v, %v; want %q", tt.node.CgroupDriver, tt.parent, spec, err, tt.want)
		}
		// The driver may have changed since the request was stored.
		if spec, err := ParseStored(c, ""); err != nil || spec.CgroupParent != tt.want {
			t.Errorf("stored %q: got %+v, %v; want %q", tt.parent, spec, err, tt.want)
		}
	}
}

func TestResources(t *testing.T) {
	node := testNode()
	node.CheckResources = func(field string, r *cri.LinuxContainerResources) error {
		if r.GetCpuShares() == 1 {
			return fmt.Errorf("%s.cpu_shares: %w", field, errdefs.ErrInvalidArgument)
		}
		return nil
	}
	bad, good := &cri.LinuxContainerResources{CpuShares: 1}, &cri.LinuxContainerResources{CpuShares: 2}
	rules{
		"overhead":  {func(c *cri.PodSandboxConfig) { c.Linux.Overhead = bad }, "linux.overhead.cpu_shares"},
		"resources": {func(c *cri.PodSandboxConfig) { c.Linux.Resources = bad }, "linux.resources.cpu_shares"},
		"valid":     {func(c *cri.PodSandboxConfig) { c.Linux.Overhead, c.Linux.Resources = good, good }, ""},
	}.check(t, node)
	if err := node.CheckPodResources("", nil, bad); err == nil || !strings.HasPrefix(err.Error(), "resources.cpu_shares") {
		t.Errorf("update: got error %v", err)
	}
}
