package sandbox

import (
	"maps"
	"slices"
	"strings"

	"github.com/criserver/criserver/sandbox/namespace"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// sysctls returns the pod's kernel parameters in the order of their names. Each
// must be allowed, and confined by a namespace that the pod does not share with
// the host: a value that reached the host would be the end of all isolation.
func sysctls(c *cri.PodSandboxConfig, allowed []string) ([]namespace.Sysctl, error) {
	given := c.GetLinux().GetSysctls()
	if len(given) > maxSysctls {
		return nil, invalid("linux.sysctls", "has %d elements, more than %d", len(given), maxSysctls)
	}
	var out []namespace.Sysctl
	for _, name := range slices.Sorted(maps.Keys(given)) {
		path, ok := sysctlPath(name)
		if !ok {
			return nil, invalid("linux.sysctls", "%q is not the name of a sysctl", name)
		}
		if !allowedSysctl(path, allowed) {
			return nil, invalid("linux.sysctls", "%q is not among those allowed, %q", name, allowed)
		}
		if shared := sharedBy(path, c); shared != "" {
			return nil, invalid("linux.sysctls", "%q would change the host, as the pod uses the host's %s", name, shared)
		}
		value := given[name]
		if len(value) > maxSysctlSize || strings.IndexFunc(value, func(r rune) bool { return !isSysctlRune(r) }) >= 0 {
			return nil, invalid("linux.sysctls", "value of %q may have at most %d letters, digits, blanks and characters of %q",
				name, maxSysctlSize, sysctlPunctuation)
		}
		if strings.TrimSpace(value) == "" {
			return nil, invalid("linux.sysctls", "value of %q must not be empty", name)
		}
		value, err := hostValue(path, value, userMaps(c))
		if err != nil {
			return nil, invalid("linux.sysctls", "value of %q: %v", name, err)
		}
		out = append(out, namespace.Sysctl{Path: path, Value: value})
	}
	return out, nil
}

const sysctlPunctuation = ".,:_/-"

func isSysctlRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == ' ' || r == '\t' ||
		strings.ContainsRune(sysctlPunctuation, r)
}

// sysctlPath turns a name into the path below /proc/sys. As in sysctl(8) the
// first separator decides: after a dot, a slash stands for a dot in a name.
func sysctlPath(name string) (string, bool) {
	i := strings.IndexAny(name, "./")
	if i <= 0 || len(name) > maxSysctlName {
		return "", false
	}
	path := name
	if name[i] == '.' {
		path = strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, name)
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." || strings.IndexFunc(part, func(r rune) bool { return !isNameRune(r) }) >= 0 {
			return "", false
		}
	}
	return path, true
}

// allowedSysctl compares whole names, or prefixes where a pattern ends in "*".
// A prefix must not be able to leave its directory, which sysctlPath sees to.
func allowedSysctl(path string, allowed []string) bool {
	for _, pattern := range allowed {
		prefix, isPrefix := strings.CutSuffix(pattern, "*")
		prefix = strings.ReplaceAll(prefix, ".", "/")
		if path == prefix && !isPrefix || isPrefix && prefix != "" && strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

// sharedBy names the host's namespace that a sysctl would change, or "".
// Whatever no namespace of the pod confines belongs to the host.
func sharedBy(path string, c *cri.PodSandboxConfig) string {
	switch {
	case strings.HasPrefix(path, "net/"):
		if hostNetwork(c) {
			return "network"
		}
	case strings.HasPrefix(path, "kernel/shm"), strings.HasPrefix(path, "kernel/msg"), path == "kernel/sem",
		strings.HasPrefix(path, "fs/mqueue/"):
		if hostIPC(c) {
			return "IPC namespace"
		}
	case path == "kernel/domainname":
		if hostNetwork(c) {
			return "UTS namespace"
		}
	default:
		return "kernel parameters"
	}
	return ""
}

// ofInterface says whether a sysctl belongs to an interface that exists only
// once the pod is attached to its network.
func ofInterface(sc namespace.Sysctl) bool {
	parts := strings.Split(sc.Path, "/")
	if len(parts) < 5 || parts[0] != "net" || parts[2] != "conf" && parts[2] != "neigh" {
		return false
	}
	return parts[3] != "all" && parts[3] != "default" && parts[3] != "lo"
}
