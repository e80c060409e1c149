package oci

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// maxUnified is the maximum number of unified resources.
	maxUnified = 128
	// maxUnifiedValue is the maximum length of a value in bytes.
	maxUnifiedValue = 4096
)

var unified = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[A-Za-z0-9_]+)+$`)

func (b *Builder) checkUnified(field string, r *cri.LinuxContainerResources) error {
	m := r.GetUnified()
	switch {
	case len(m) == 0:
		return nil
	case !b.host.CgroupV2:
		return invalid("%s.unified: this host has cgroup v1, where there are no unified resources", field)
	case len(m) > maxUnified:
		return invalid("%s.unified has %d entries, more than %d", field, len(m), maxUnified)
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		// The key is a file name in the container's cgroup. Keys such as cgroup.procs would
		// move processes or change the tree (CVE-2023-6476).
		if !unified.MatchString(k) || strings.HasPrefix(k, "cgroup.") {
			return invalid("%s.unified: %q is not a key of a resource controller", field, k)
		}
		if rule := b.host.live().UnifiedRule(k); rule != "" {
			return invalid("%s.unified: %q %s", field, k, rule)
		}
		if v := m[k]; v == "" || len(v) > maxUnifiedValue || strings.ContainsRune(v, 0) {
			return invalid("%s.unified[%q] must have 1 to %d bytes and no NUL", field, k, maxUnifiedValue)
		}
	}
	return nil
}
