package sandbox

import (
	"fmt"
	"net/netip"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/sandbox/network"
	"github.com/criserver/criserver/sandbox/podspec"
)

// hostPorts are the host ports that pods hold. Plugins do not look: with two
// pods that want the same one, the later would be made and never reached.
type hostPorts struct {
	mu    sync.Mutex // guards held
	held  map[string][]network.PortMapping
	names map[string]podspec.Name
}

// claim takes the ports for a pod, all or none. ErrFailedPrecondition when one
// is another pod's.
func (h *hostPorts) claim(id string, name podspec.Name, ports []network.PortMapping) error {
	if len(ports) == 0 {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range ports {
		for other, held := range h.held {
			for _, q := range held {
				if other != id && overlap(p, q) {
					return fmt.Errorf("port_mappings: host port %s is that of pod sandbox %q (%s): %w", portName(p), other, h.names[other], errdefs.ErrFailedPrecondition)
				}
			}
		}
	}
	h.take(id, name, ports)
	return nil
}

// take is claim for what is so already. It is called with mu held.
func (h *hostPorts) take(id string, name podspec.Name, ports []network.PortMapping) {
	if h.held == nil {
		h.held, h.names = make(map[string][]network.PortMapping), make(map[string]podspec.Name)
	}
	h.held[id], h.names[id] = ports, name
}

// adopt notes the ports of a pod that an earlier daemon made.
func (h *hostPorts) adopt(id string, name podspec.Name, ports []network.PortMapping) {
	if len(ports) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.take(id, name, ports)
}

// free gives back what the pod held, if anything.
func (h *hostPorts) free(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.held, id)
	delete(h.names, id)
}

// overlap says whether one packet could be meant for both.
func overlap(a, b network.PortMapping) bool {
	return a.HostPort == b.HostPort && a.Protocol == b.Protocol && sameHost(a.HostIP, b.HostIP)
}

// sameHost compares host addresses: none stands for all of both families, the
// unspecified one for all of its own.
func sameHost(a, b string) bool {
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

// allHosts reports whether a host address stands for all addresses of a family or of both.
func allHosts(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "" || err == nil && a.Unmap().IsUnspecified()
}

func portName(p network.PortMapping) string {
	name := fmt.Sprintf("%d/%s", p.HostPort, p.Protocol)
	if p.HostIP != "" {
		name += " of " + p.HostIP
	}
	return name
}
