package sandbox

import (
	"fmt"
	"net/netip"
	"path"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/rootpath"
	"github.com/criserver/criserver/sandbox/network"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Bounds of a request, in bytes or elements.
const (
	maxConfig     = 1 << 20
	maxMetadata   = 4096
	maxSysctlName = 253
	maxHostname   = 64 // the kernel's __NEW_UTS_LEN
	maxPorts      = 4096
	maxDNS        = 1024 // servers, searches, options: each
	maxDNSEntry   = 2048 // all search domains that Kubernetes allows in a pod
	maxSysctls    = 256
	maxSysctlSize = 4096
)

// invalid names the field of the request and the rule that it breaks.
func invalid(field, rule string, args ...any) error {
	return fmt.Errorf("%s %s: %w", field, fmt.Sprintf(rule, args...), errdefs.ErrInvalidArgument)
}

// validate checks the whole request before anything is done about it.
func (m *Manager) validate(c *cri.PodSandboxConfig, handler string) error {
	if c == nil {
		return invalid("config", "must be given")
	}
	if n := proto.Size(c); n > maxConfig {
		return invalid("config", "has %d bytes, more than %d", n, maxConfig)
	}
	if !m.cfg.KnownHandler(handler) {
		return invalid("runtime_handler", "%q is unknown; there are %q", handler, m.cfg.HandlerNames())
	}
	if c.Windows != nil {
		return invalid("windows", "must not be set on Linux")
	}
	for _, check := range []func(*cri.PodSandboxConfig) error{
		checkMetadata, checkHostname, checkLogDirectory, checkDNS, checkPorts, checkSecurity, checkIdentity,
	} {
		if err := check(c); err != nil {
			return err
		}
	}
	if parent := c.GetLinux().GetCgroupParent(); parent != "" {
		if err := checkCgroupParent(m.cfg.CgroupDriver, parent); err != nil {
			return err
		}
	}
	if err := m.checkResources("linux.", c.GetLinux().GetOverhead(), c.GetLinux().GetResources()); err != nil {
		return err
	}
	if err := m.checkUserNamespaceSupport(c, handler); err != nil {
		return err
	}
	if m.cfg.CheckSecurity != nil {
		if err := m.cfg.CheckSecurity(c.GetLinux().GetSecurityContext()); err != nil {
			return err
		}
	}
	if m.cfg.PausePath == "" && sharesPID(c) {
		return invalid("linux.security_context.namespace_options.pid", "is POD, for which this daemon has no pause binary")
	}
	if _, err := bandwidth(c); err != nil {
		return err
	}
	if _, _, err := interfaces(c, m.cfg.CNI.Additional); err != nil {
		return err
	}
	_, err := sysctls(c, m.cfg.AllowedSysctls)
	return err
}

// checkMetadata requires a name and a namespace. Kubernetes sends DNS names, but other
// clients send blanks, slashes and more, so every printable character is allowed. The
// values never become part of a path or of a command line; see network.Pod for plugins.
func checkMetadata(c *cri.PodSandboxConfig) error {
	if c.Metadata == nil {
		return invalid("metadata", "must be given")
	}
	for _, f := range []struct {
		name, value string
		required    bool
	}{
		{"name", c.Metadata.Name, true}, {"namespace", c.Metadata.Namespace, true}, {"uid", c.Metadata.Uid, false},
	} {
		field := "metadata." + f.name
		switch {
		case f.value == "" && f.required:
			return invalid(field, "must not be empty")
		case len(f.value) > maxMetadata:
			return invalid(field, "has %d bytes, more than %d", len(f.value), maxMetadata)
		case strings.ContainsFunc(f.value, unicode.IsControl):
			return invalid(field, "%q must not contain control characters", f.value)
		}
	}
	return nil
}

func isNameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.'
}

// checkHostname allows what the kernel allows, except for characters that end a name in
// /etc/hosts. The kubelet sends a qualified name for setHostnameAsFQDN, and one with a
// trailing dot if there is no cluster domain.
func checkHostname(c *cri.PodSandboxConfig) error {
	if len(c.Hostname) > maxHostname {
		return invalid("hostname", "has %d bytes, more than %d", len(c.Hostname), maxHostname)
	}
	if strings.ContainsFunc(c.Hostname, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) || r == '#' }) {
		return invalid("hostname", "%q must not contain blanks, control characters and '#'", c.Hostname)
	}
	return nil
}

func checkLogDirectory(c *cri.PodSandboxConfig) error {
	dir := c.LogDirectory
	switch {
	case dir == "":
		return nil
	case !filepath.IsAbs(dir):
		return invalid("log_directory", "%q must be absolute", dir)
	case strings.ContainsRune(dir, 0):
		return invalid("log_directory", "must have no NUL")
	case rootpath.TooLong(dir):
		return invalid("log_directory", rootpath.LengthRule)
	case hasDotDot(dir):
		return invalid("log_directory", `%q must not contain ".."`, dir)
	}
	return nil
}

func hasDotDot(p string) bool {
	for part := range strings.SplitSeq(p, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}

// checkDNS keeps each entry within its line of the pod's resolv.conf. The kubelet takes
// the entries of a host's resolv.conf as they are, so they are not held to a form.
func checkDNS(c *cri.PodSandboxConfig) error {
	d := c.DnsConfig
	for _, f := range []struct {
		name   string
		values []string
	}{{"servers", d.GetServers()}, {"searches", d.GetSearches()}, {"options", d.GetOptions()}} {
		field := "dns_config." + f.name
		if len(f.values) > maxDNS {
			return invalid(field, "has %d elements, more than %d", len(f.values), maxDNS)
		}
		for _, v := range f.values {
			if len(v) > maxDNSEntry || strings.ContainsFunc(v, unicode.IsControl) {
				return invalid(field, "%q must have at most %d bytes and no control characters", v, maxDNSEntry)
			}
		}
	}
	return nil
}

func checkPorts(c *cri.PodSandboxConfig) error {
	if len(c.PortMappings) > maxPorts {
		return invalid("port_mappings", "has %d elements, more than %d", len(c.PortMappings), maxPorts)
	}
	for i, p := range c.PortMappings {
		field := fmt.Sprintf("port_mappings[%d].", i)
		if p.GetHostPort() < 0 || p.GetHostPort() > 65535 {
			return invalid(field+"host_port", "%d is not within 0 and 65535", p.GetHostPort())
		}
		if _, ok := protocols[p.GetProtocol()]; !ok {
			return invalid(field+"protocol", "%d is not TCP, UDP or SCTP", p.GetProtocol())
		}
		if p.GetHostPort() == 0 {
			continue // no mapping, so the rest says nothing
		}
		if p.ContainerPort < 1 || p.ContainerPort > 65535 {
			return invalid(field+"container_port", "%d is not within 1 and 65535", p.ContainerPort)
		}
		if p.HostIp != "" {
			if a, err := netip.ParseAddr(p.HostIp); err != nil || a.Zone() != "" {
				return invalid(field+"host_ip", "%q is not an IP address", p.HostIp)
			}
		}
	}
	return checkOverlap(portMappings(c))
}

// checkOverlap refuses two mappings of which only one could be reached. A mapping of one
// host address and a mapping of all of them can both be reached.
func checkOverlap(ports []network.PortMapping) error {
	for i, p := range ports {
		for _, q := range ports[:i] {
			if overlap(p, q) && allHosts(p.HostIP) == allHosts(q.HostIP) && p.ContainerPort != q.ContainerPort {
				return invalid("port_mappings", "maps host port %s to container ports %d and %d", portName(p), q.ContainerPort, p.ContainerPort)
			}
		}
	}
	return nil
}

// checkCgroupParent holds a parent to the form of its driver. The kubelet's
// driver must be ours, or pods end up where nobody limits them.
func checkCgroupParent(driver CgroupDriver, parent string) error {
	const field = "linux.cgroup_parent"
	if strings.ContainsAny(parent, "\n\x00:") {
		return invalid(field, "must have no line break, NUL or ':'")
	}
	if rootpath.TooLong(parent) {
		return invalid(field, rootpath.LengthRule)
	}
	slice := strings.HasSuffix(parent, ".slice")
	if driver == Systemd {
		// As a path, the last part is what systemd knows.
		name := path.Base(parent)
		if !slice || hasDotDot(parent) || strings.HasPrefix(name, "-") || strings.Contains(name, "--") || strings.Contains(name, "-.slice") {
			return invalid(field, `%q must be the name of a slice, ending in ".slice", as the cgroup driver is systemd`, parent)
		}
		return nil
	}
	switch {
	case slice:
		return invalid(field, "%q is a systemd slice, but the cgroup driver is cgroupfs", parent)
	case hasDotDot(parent) || path.Clean("/"+parent) == "/":
		return invalid(field, `%q must be below the root, without ".."`, parent)
	}
	return nil
}
