package network

import (
	"github.com/containernetworking/cni/pkg/types"
)

// Adopt notes attachments that an earlier daemon made, before Run.
func (n *Network) Adopt(pod string, interfaces ...Interface) {
	for _, i := range interfaces {
		l, err := fromRaw(i.Plan)
		if err != nil {
			n.AdoptUnknown(pod, i.Name)
			continue
		}
		n.gate.mu.Lock()
		n.gate.note(i.attachment(pod), l.conf.Name)
		n.gate.mu.Unlock()
		if l.masquerade != nil {
			n.masquerades.adopt(*l.masquerade, i.attachment(pod))
		}
	}
}

// AdoptUnknown notes attachments of a pod whose record cannot be read. As nobody knows
// what they need, this daemon then takes nothing out of the tables of earlier ones.
func (n *Network) AdoptUnknown(pod string, ifNames ...string) {
	n.gate.mu.Lock()
	defer n.gate.mu.Unlock()
	n.gate.unknown = true
	for _, name := range ifNames {
		n.gate.note(types.GCAttachment{ContainerID: pod, IfName: name}, "")
	}
}

// AdoptPorts notes the host ports of a pod that an earlier daemon attached,
// before Run.
func (n *Network) AdoptPorts(pod string, i Interface, mappings []PortMapping) {
	l, err := fromRaw(i.Plan)
	if err != nil || l.hostPorts == nil {
		return
	}
	addrs, err := addrsOf(i.Result)
	if err != nil {
		return // it was not attached to the end, and is about to be detached
	}
	n.ports.set(*l.hostPorts, pod, &podPorts{addrs, mappings})
}
