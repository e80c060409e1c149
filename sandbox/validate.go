package sandbox

import (
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/sandbox/network"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Bounds of a request, in bytes or elements.
const (
	maxPorts = 4096
)

// invalid names the field of the request and the rule that it breaks.
func invalid(field, rule string, args ...any) error {
	return fmt.Errorf("%s %s: %w", field, fmt.Sprintf(rule, args...), errdefs.ErrInvalidArgument)
}

// validate checks the whole request before anything is done about it.
func (m *Manager) validate(c *cri.PodSandboxConfig, handler string) error {
	if err := checkPorts(c); err != nil {
		return err
	}
	if _, err := bandwidth(c); err != nil {
		return err
	}
	_, _, err := interfaces(c, m.cfg.CNI.Additional)
	return err
}

func isNameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.'
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
