package podspec

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/criserver/criserver/internal/userns"
	"github.com/criserver/criserver/sandbox/namespace"
)

const (
	maxSysctls        = 256
	maxSysctlName     = 253  // bytes
	maxSysctlValue    = 4096 // bytes
	sysctlPunctuation = ".,:_/-"
)

// sysctls parses the requested sysctls and adds the default sysctls of the node.
func (p *parser) sysctls() error {
	requested := make(map[string]bool) // by path
	if err := p.requestedSysctls(requested); err != nil {
		return err
	}
	if p.node == nil {
		return nil // a stored request: its sysctls are set
	}
	for _, name := range slices.Sorted(maps.Keys(p.node.DefaultSysctls)) {
		path, ok := sysctlPath(name)
		if !ok || requested[path] || hostScope(path, p.spec.Namespaces) != "" {
			continue
		}
		// A range of groups that the user namespace of the pod does not have is omitted.
		if value, err := hostValue(path, p.node.DefaultSysctls[name], p.spec.Namespaces.User); err == nil {
			p.addSysctl(namespace.Sysctl{Path: path, Value: value})
		}
	}
	return nil
}

func (p *parser) addSysctl(s namespace.Sysctl) {
	if isInterfaceSysctl(s.Path) {
		p.spec.InterfaceSysctls = append(p.spec.InterfaceSysctls, s)
	} else {
		p.spec.Sysctls = append(p.spec.Sysctls, s)
	}
}

// requestedSysctls parses the sysctls in the order of their names, and sets their paths in requested. Each sysctl must
// be allowed, and must be confined by a namespace that the pod does not share with the host: a value that reached the
// host would break the isolation of all pods.
func (p *parser) requestedSysctls(requested map[string]bool) error {
	const field = "linux.sysctls"
	values := p.config.GetLinux().GetSysctls()
	if len(values) > maxSysctls {
		return invalid(field, "has %d elements, more than %d", len(values), maxSysctls)
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		path, ok := sysctlPath(name)
		if !ok {
			return invalid(field, "%q is not the name of a sysctl", name)
		}
		if p.node != nil && !sysctlAllowed(path, p.node.AllowedSysctls) {
			return invalid(field, "%q is not among the allowed sysctls %q", name, p.node.AllowedSysctls)
		}
		if shared := hostScope(path, p.spec.Namespaces); shared != "" {
			return invalid(field, "%q would change the host, because the pod uses the %s of the host", name, shared)
		}
		value := values[name]
		if len(value) > maxSysctlValue || strings.ContainsFunc(value, func(r rune) bool { return !isSysctlRune(r) }) {
			return invalid(field, "value of %q must have at most %d bytes, and only letters, digits, blanks and characters of %q",
				name, maxSysctlValue, sysctlPunctuation)
		}
		if strings.TrimSpace(value) == "" {
			return invalid(field, "value of %q must not be empty", name)
		}
		value, err := hostValue(path, value, p.spec.Namespaces.User)
		if err != nil {
			return invalid(field, "value of %q: %v", name, err)
		}
		requested[path] = true
		p.addSysctl(namespace.Sysctl{Path: path, Value: value})
	}
	return nil
}

func isSysctlRune(r rune) bool {
	return isAlphanumeric(r) || r == ' ' || r == '\t' || strings.ContainsRune(sysctlPunctuation, r)
}

func isAlphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// isNameRune reports whether a rune may be in the name of a sysctl or of an interface.
func isNameRune(r rune) bool { return isAlphanumeric(r) || r == '-' || r == '_' || r == '.' }

// sysctlPath returns the path of a sysctl below /proc/sys. As in sysctl(8), the first separator in the name decides
// which separator the name uses: if it is a dot, a slash stands for a dot within an element of the path.
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
		if part == "" || part == "." || part == ".." || strings.ContainsFunc(part, func(r rune) bool { return !isNameRune(r) }) {
			return "", false
		}
	}
	return path, true
}

// sysctlAllowed reports whether a path matches an element of allowed: a name, or a prefix that ends in "*". The path
// cannot leave the directory of the prefix, because sysctlPath refuses "..".
func sysctlAllowed(path string, allowed []string) bool {
	for _, pattern := range allowed {
		prefix, isPrefix := strings.CutSuffix(pattern, "*")
		prefix = strings.ReplaceAll(prefix, ".", "/")
		if path == prefix && !isPrefix || isPrefix && prefix != "" && strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

// hostScope returns the part of the host that a sysctl of the pod would change, or "" if a
// namespace of the pod confines the sysctl.
func hostScope(path string, n Namespaces) string {
	switch {
	case strings.HasPrefix(path, "net/"):
		if n.HostNetwork {
			return "network"
		}
	case strings.HasPrefix(path, "kernel/shm"), strings.HasPrefix(path, "kernel/msg"), path == "kernel/sem",
		strings.HasPrefix(path, "fs/mqueue/"):
		if n.HostIPC {
			return "IPC namespace"
		}
	case path == "kernel/domainname":
		if n.HostNetwork {
			return "UTS namespace"
		}
	default:
		return "kernel parameters"
	}
	return ""
}

// isInterfaceSysctl reports whether a sysctl belongs to an interface that does not exist before the pod is attached to
// its network.
func isInterfaceSysctl(path string) bool {
	parts := strings.Split(path, "/")
	if len(parts) < 5 || parts[0] != "net" || parts[2] != "conf" && parts[2] != "neigh" {
		return false
	}
	return parts[3] != "all" && parts[3] != "default" && parts[3] != "lo"
}

// pingGroupRange is the only sysctl of a network or IPC namespace whose value has IDs of users or groups: the first and
// the last group that may open ICMP datagram sockets.
const pingGroupRange = "net/ipv4/ping_group_range"

// hostValue returns the value of a sysctl as the daemon must write it. The kernel interprets the IDs in a value in the
// user namespace of the writer, which is the user namespace of the host, but the request has IDs of the pod's user
// namespace.
func hostValue(path, value string, maps *userns.Maps) (string, error) {
	if maps == nil || path != pingGroupRange {
		return value, nil
	}
	first, last, err := groupRange(value)
	if err != nil || first > last { // the kernel treats a range whose first group is above the last as empty
		return value, err
	}
	if len(maps.GIDs) != 1 { // only in a stored request; userNamespace returns the error
		return value, nil
	}
	m := maps.GIDs[0] // begins at group 0
	if first >= uint64(m.Size) {
		return "", fmt.Errorf("group %d is not in the user namespace of the pod, which has %d groups", first, m.Size)
	}
	// "0 2147483647" is the usual way to allow all groups. The groups beyond the map do not exist in the pod.
	last = min(last, uint64(m.Size)-1)
	return fmt.Sprintf("%d %d", uint64(m.HostID)+first, uint64(m.HostID)+last), nil
}

func groupRange(value string) (first, last uint64, err error) {
	fields := strings.Fields(value)
	if len(fields) != 2 {
		return 0, 0, fmt.Errorf("%q must be the first and the last group", value)
	}
	for i, to := range []*uint64{&first, &last} {
		// Like the kernel, ParseUint accepts hexadecimal and octal numbers. Unlike the kernel, it accepts underscores.
		if *to, err = strconv.ParseUint(fields[i], 0, 32); err != nil || strings.Contains(fields[i], "_") {
			return 0, 0, fmt.Errorf("%q is not the number of a group", fields[i])
		}
	}
	return first, last, nil
}
