package sandbox

import (
	"fmt"
	"math"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// checkIdentity holds to form what the request says of sandbox processes. There
// are none but the built-in pause, which has no privileges to begin with: nothing
// of it is applied (docs/security.md), but what could never be is refused.
func checkIdentity(c *cri.PodSandboxConfig) error {
	const prefix = "linux.security_context."
	sc := c.GetLinux().GetSecurityContext()
	type id struct {
		field string
		value int64
	}
	var all []id
	if u := sc.GetRunAsUser(); u != nil {
		all = append(all, id{"run_as_user", u.GetValue()})
	}
	if g := sc.GetRunAsGroup(); g != nil {
		all = append(all, id{"run_as_group", g.GetValue()})
	}
	for i, g := range sc.GetSupplementalGroups() {
		all = append(all, id{fmt.Sprintf("supplemental_groups[%d]", i), g})
	}
	for _, x := range all {
		if x.value < 0 || x.value > math.MaxInt32 {
			return invalid(prefix+x.field, "%d must be from 0 to %d", x.value, math.MaxInt32)
		}
	}
	if _, ok := cri.SupplementalGroupsPolicy_name[int32(sc.GetSupplementalGroupsPolicy())]; !ok {
		return invalid(prefix+"supplemental_groups_policy", "%d is unknown", sc.GetSupplementalGroupsPolicy())
	}
	return nil
}
