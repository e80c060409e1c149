package sandbox

import (
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/sandbox/network"
	"github.com/criserver/criserver/sandbox/podspec"
)

// hostPorts has the host ports that pods have reserved. CNI plugins do not check for conflicts: if
// two pods had the same host port, the second pod would be created but never reached.
type hostPorts struct {
	mu   sync.Mutex // guards pods
	pods map[string]reservation
}

// reservation has the host ports of one pod.
type reservation struct {
	name  podspec.Name
	ports []network.PortMapping
}

// reserve reserves all ports for a pod, or none. It returns ErrFailedPrecondition if another pod has one of the ports.
func (h *hostPorts) reserve(id string, name podspec.Name, ports []network.PortMapping) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range ports {
		for other, r := range h.pods {
			for _, q := range r.ports {
				if other != id && podspec.PortsOverlap(p, q) {
					return fmt.Errorf("port_mappings: host port %s is in use by pod sandbox %q (%s): %w",
						podspec.PortName(p), other, r.name, errdefs.ErrFailedPrecondition)
				}
			}
		}
	}
	h.set(id, name, ports)
	return nil
}

// reserveUnchecked reserves the ports of a pod that an earlier daemon created. The pod has the
// ports already, so reserveUnchecked does not check for conflicts.
func (h *hostPorts) reserveUnchecked(id string, name podspec.Name, ports []network.PortMapping) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.set(id, name, ports)
}

// set must be called with mu held.
func (h *hostPorts) set(id string, name podspec.Name, ports []network.PortMapping) {
	if len(ports) == 0 {
		return
	}
	if h.pods == nil {
		h.pods = make(map[string]reservation)
	}
	h.pods[id] = reservation{name, ports}
}

// release ends the reservation of a pod, if there is one.
func (h *hostPorts) release(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.pods, id)
}
