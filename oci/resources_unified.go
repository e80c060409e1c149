package oci

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Limits of the map of unified resources, in entries and bytes.
const maxUnified, maxUnifiedValue = 128, 4096

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
		if rule := b.host.unifiedRule(k); rule != "" {
			return invalid("%s.unified: %q %s", field, k, rule)
		}
		if v := m[k]; v == "" || len(v) > maxUnifiedValue || strings.ContainsRune(v, 0) {
			return invalid("%s.unified[%q] must have 1 to %d bytes and no NUL", field, k, maxUnifiedValue)
		}
	}
	return nil
}

// unifiedRule returns the rule that a key of unified resources breaks, or "". The key must be a
// file that this kernel has in cgroups and that the daemon can write. The cgroup of the
// container does not exist yet, so unifiedRule looks at cgroups at the top of the hierarchy. If
// they do not show the answer, the OCI runtime decides.
func (h *Host) unifiedRule(key string) string {
	if h.UnifiedRoot == "" {
		return ""
	}
	controller, _, _ := strings.Cut(key, ".")
	there := strings.Fields(readTrimmed(filepath.Join(h.UnifiedRoot, controllersFile)))
	children, err := filepath.Glob(filepath.Join(h.UnifiedRoot, "*", controllersFile))
	if err != nil {
		return ""
	}
	known := false
	for _, file := range append(children, filepath.Join(h.UnifiedRoot, controllersFile)) {
		dir := filepath.Dir(file)
		if info, err := os.Stat(filepath.Join(dir, key)); err == nil {
			if info.Mode().Perm()&0o222 == 0 {
				return "cannot be written"
			}
			return ""
		}
		// The root has few of the files of its controllers.
		known = known || dir != h.UnifiedRoot && slices.Contains(strings.Fields(readTrimmed(file)), controller)
	}
	switch {
	case known:
		return "does not exist in this kernel"
	case len(there) > 0 && !slices.Contains(there, controller):
		return "needs a cgroup controller that this host does not have"
	}
	return ""
}

// controllersFile is the file that lists the controllers of a cgroup.
const controllersFile = "cgroup.controllers"
