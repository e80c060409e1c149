package podspec

import (
	"fmt"
	"math"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// security parses the security context, except for its namespace options.
func (p *parser) security() error {
	sc := p.config.GetLinux().GetSecurityContext()
	p.spec.SELinux = sc.GetSelinuxOptions()
	if err := checkIdentity(sc); err != nil {
		return err
	}
	if p.node == nil || p.node.CheckSecurity == nil {
		return nil
	}
	return p.node.CheckSecurity(sc)
}

// checkIdentity checks the users and groups of sandbox processes. The only sandbox process is the built-in pause, which
// has no privileges. The daemon therefore applies none of these fields (docs/security.md), but refuses values that
// cannot be applied.
func checkIdentity(sc *cri.LinuxSandboxSecurityContext) error {
	if sc.GetRunAsGroup() != nil && sc.GetRunAsUser() == nil {
		return invalid(securityField+"run_as_group", "must not be set without run_as_user")
	}
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
			return invalid(securityField+x.field, "%d must be from 0 to %d", x.value, math.MaxInt32)
		}
	}
	if _, ok := cri.SupplementalGroupsPolicy_name[int32(sc.GetSupplementalGroupsPolicy())]; !ok {
		return invalid(securityField+"supplemental_groups_policy", "%d is unknown", sc.GetSupplementalGroupsPolicy())
	}
	return nil
}
