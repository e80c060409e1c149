package podspec

import (
	"fmt"
	"math"
	"testing"

	"github.com/containerd/errdefs"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestSecurity(t *testing.T) {
	set := func(change func(*cri.LinuxSandboxSecurityContext)) func(*cri.PodSandboxConfig) {
		return func(c *cri.PodSandboxConfig) { change(c.Linux.SecurityContext) }
	}
	id := func(n int64) *cri.Int64Value { return &cri.Int64Value{Value: n} }
	node := testNode()
	node.CheckSecurity = func(sc *cri.LinuxSandboxSecurityContext) error {
		if sc.GetPrivileged() {
			return fmt.Errorf("privileged: %w", errdefs.ErrInvalidArgument)
		}
		return nil
	}
	rules{
		"group without user": {set(func(sc *cri.LinuxSandboxSecurityContext) { sc.RunAsGroup = id(0) }), "run_as_group"},
		"user and group":     {set(func(sc *cri.LinuxSandboxSecurityContext) { sc.RunAsUser, sc.RunAsGroup = id(0), id(math.MaxInt32) }), ""},
		"negative user":      {set(func(sc *cri.LinuxSandboxSecurityContext) { sc.RunAsUser = id(-1) }), "run_as_user"},
		"large group":        {set(func(sc *cri.LinuxSandboxSecurityContext) { sc.RunAsUser, sc.RunAsGroup = id(0), id(1<<31) }), "run_as_group"},
		"negative supplemental group": {set(func(sc *cri.LinuxSandboxSecurityContext) {
			sc.SupplementalGroups = []int64{1, -1}
		}), "supplemental_groups[1]"},
		"unknown policy":       {set(func(sc *cri.LinuxSandboxSecurityContext) { sc.SupplementalGroupsPolicy = 7 }), "supplemental_groups_policy"},
		"refused by the node":  {set(func(sc *cri.LinuxSandboxSecurityContext) { sc.Privileged = true }), "privileged"},
		"accepted by the node": {set(func(sc *cri.LinuxSandboxSecurityContext) { sc.SelinuxOptions = &cri.SELinuxOption{Level: "s0"} }), ""},
	}.check(t, node)
}
