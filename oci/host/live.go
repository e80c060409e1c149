package host

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// liveFacts implements oci.LiveFacts. It reads files at each call.
type liveFacts struct {
	// unifiedRoot is the root directory of the v2 hierarchy, or "" on a host without v2.
	unifiedRoot string
}

// OnlineCPUs implements oci.LiveFacts.
func (liveFacts) OnlineCPUs() string { return readTrimmed("/sys/devices/system/cpu/online") }

// OnlineNodes implements oci.LiveFacts.
func (liveFacts) OnlineNodes() string { return readTrimmed("/sys/devices/system/node/online") }

// UnifiedRule returns the rule that a key of unified resources breaks, or "". The key must be a
// file that this kernel has in cgroups and that the daemon can write. The cgroup of the
// container does not exist yet, so UnifiedRule looks at cgroups at the top of the hierarchy. If
// they do not show the answer, the OCI runtime decides.
func (f liveFacts) UnifiedRule(key string) string {
	if f.unifiedRoot == "" {
		return ""
	}
	controller, _, _ := strings.Cut(key, ".")
	there := strings.Fields(readTrimmed(filepath.Join(f.unifiedRoot, controllersFile)))
	children, err := filepath.Glob(filepath.Join(f.unifiedRoot, "*", controllersFile))
	if err != nil {
		return ""
	}
	known := false
	for _, file := range append(children, filepath.Join(f.unifiedRoot, controllersFile)) {
		dir := filepath.Dir(file)
		if info, err := os.Stat(filepath.Join(dir, key)); err == nil {
			if info.Mode().Perm()&0o222 == 0 {
				return "cannot be written"
			}
			return ""
		}
		// The root has few of the files of its controllers.
		known = known || dir != f.unifiedRoot && slices.Contains(strings.Fields(readTrimmed(file)), controller)
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
