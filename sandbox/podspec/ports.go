package podspec

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/criserver/criserver/sandbox/network"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxPorts bounds the number of port mappings.
const maxPorts = 4096

var protocols = map[cri.Protocol]string{
	cri.Protocol_TCP: "tcp", cri.Protocol_UDP: "udp", cri.Protocol_SCTP: "sctp",
}

// ports parses the port mappings.
func (p *parser) ports() error {
	mappings := p.config.PortMappings
	p.spec.PortMappings = hostPortMappings(mappings)
	if len(mappings) > maxPorts {
		return invalid("port_mappings", "has %d elements, more than %d", len(mappings), maxPorts)
	}
	for i, m := range mappings {
		if err := checkPort(fmt.Sprintf("port_mappings[%d].", i), m); err != nil {
			return err
		}
	}
	return checkConflicts(p.spec.PortMappings)
}

func checkPort(field string, m *cri.PortMapping) error {
	if m.GetHostPort() < 0 || m.GetHostPort() > 65535 {
		return invalid(field+"host_port", "%d must be from 0 to 65535", m.GetHostPort())
	}
	if _, ok := protocols[m.GetProtocol()]; !ok {
		return invalid(field+"protocol", "%d is not TCP, UDP or SCTP", m.GetProtocol())
	}
	if m.GetHostPort() == 0 {
		return nil // nothing is mapped, so the other fields have no effect
	}
	if m.ContainerPort < 1 || m.ContainerPort > 65535 {
		return invalid(field+"container_port", "%d must be from 1 to 65535", m.ContainerPort)
	}
	if m.HostIp != "" {
		if a, err := netip.ParseAddr(m.HostIp); err != nil || a.Zone() != "" {
			return invalid(field+"host_ip", "%q is not an IP address", m.HostIp)
		}
	}
	return nil
}

// hostPortMappings returns the mappings that have a host port, without duplicates. Mappings of a
// single host address come first, because plugins create rules in this order, and the first rule
// that matches a packet applies.
func hostPortMappings(mappings []*cri.PortMapping) []network.PortMapping {
	var out []network.PortMapping
	for _, p := range mappings {
		if p.GetHostPort() == 0 {
			continue
		}
		m := network.PortMapping{HostPort: p.HostPort, ContainerPort: p.ContainerPort, Protocol: protocols[p.Protocol], HostIP: p.HostIp}
		if !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	slices.SortStableFunc(out, func(a, b network.PortMapping) int {
		switch {
		case isWildcard(a.HostIP) == isWildcard(b.HostIP):
			return 0
		case isWildcard(b.HostIP):
			return -1
		}
		return 1
	})
	return out
}

// checkConflicts refuses two mappings if only one of them could be reached. A mapping of one host address and a mapping
// of all host addresses can both be reached.
func checkConflicts(ports []network.PortMapping) error {
	for i, p := range ports {
		for _, q := range ports[:i] {
			if PortsOverlap(p, q) && isWildcard(p.HostIP) == isWildcard(q.HostIP) && p.ContainerPort != q.ContainerPort {
				return invalid("port_mappings", "maps host port %s to container ports %d and %d", PortName(p), q.ContainerPort, p.ContainerPort)
			}
		}
	}
	return nil
}

// PortsOverlap reports whether a packet can match both mappings.
func PortsOverlap(a, b network.PortMapping) bool {
	return a.HostPort == b.HostPort && a.Protocol == b.Protocol && addressesOverlap(a.HostIP, b.HostIP)
}

// addressesOverlap compares two host addresses. "" stands for all addresses, and the unspecified
// address of a family for all addresses of the family.
func addressesOverlap(a, b string) bool {
	if a == "" || b == "" {
		return true
	}
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	if errX != nil || errY != nil {
		return a == b
	}
	x, y = x.Unmap(), y.Unmap()
	return x.Is4() == y.Is4() && (x == y || x.IsUnspecified() || y.IsUnspecified())
}

// isWildcard reports whether a host address stands for all addresses of one family or of both families.
func isWildcard(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "" || err == nil && a.Unmap().IsUnspecified()
}

// PortName returns the host port of a mapping for error messages, such as "80/tcp of 10.0.0.1".
func PortName(p network.PortMapping) string {
	name := fmt.Sprintf("%d/%s", p.HostPort, p.Protocol)
	if p.HostIP != "" {
		name += " of " + p.HostIP
	}
	return name
}
