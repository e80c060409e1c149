package network

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// Interface is an interface of a pod on a network. The caller must record it before Attach, because
// Detach needs the same value, even if the configuration has changed since then.
type Interface struct {
	Network string `json:"network"`
	Name    string `json:"name"` // of the interface inside the pod
	// MAC and IPs are the addresses that the pod asks for. They are empty if the plugins choose the addresses. An
	// address may have a prefix length.
	MAC string   `json:"mac,omitempty"`
	IPs []string `json:"ips,omitempty"`
	// Plan is the configuration list for Attach and Detach.
	Plan json.RawMessage `json:"plan"`
	// Result is the CNI result of the last plugin; nil before Attach.
	Result json.RawMessage `json:"result,omitempty"`
}

// Default returns the interface of the default network.
func Default(plan json.RawMessage) Interface { return Interface{Name: IfName, Plan: plan} }

func (i Interface) attachment(pod string) types.GCAttachment {
	return types.GCAttachment{ContainerID: pod, IfName: i.Name}
}

// Plan returns the configuration with which a pod is attached to the default network of a runtime handler.
func (n *Network) Plan(pod Pod, handler string) (json.RawMessage, error) {
	if err := n.StatusOf(handler); err != nil {
		return nil, err
	}
	l := n.loaded.Load().defaultOf(handler)
	if l == nil { // the configuration has changed after the call of StatusOf
		return nil, n.StatusOf(handler)
	}
	l, err := n.podList(l, pod)
	if err != nil {
		return nil, err
	}
	return l.planned, nil
}

// PlanFor returns the configuration for an interface on the network i.Network, which is the default
// network or one of Config.Additional. The error is ErrUnavailable if the network is not
// configured, and ErrInvalidArgument if the network does not support the requested addresses.
func (n *Network) PlanFor(pod Pod, i Interface) (json.RawMessage, error) {
	loaded := n.loaded.Load()
	l := loaded.additional[i.Network]
	if l == nil && loaded.list != nil && loaded.list.conf.Name == i.Network {
		l = loaded.list
	}
	if l == nil {
		return nil, fmt.Errorf("no CNI network named %q in %q: %w", i.Network, n.cfg().ConfDirs, errdefs.ErrUnavailable)
	}
	if err := n.findPlugins(l); err != nil {
		return nil, err
	}
	for capability, requested := range map[string]bool{"mac": i.MAC != "", "ips": len(i.IPs) > 0} {
		if requested && !l.capable(capability) {
			return nil, fmt.Errorf("network %q has no plugin with the capability %q, which interface %q asks for: %w",
				i.Network, capability, i.Name, errdefs.ErrInvalidArgument)
		}
	}
	l, err := n.podList(l, pod.forInterface(i))
	if err != nil {
		return nil, err
	}
	return l.planned, nil
}

// forInterface returns the pod with the parameters of one interface. Host ports and bandwidth belong to eth0.
func (p Pod) forInterface(i Interface) Pod {
	p.ifName, p.mac, p.ips = i.Name, i.MAC, i.IPs
	if i.Name != IfName {
		p.PortMappings, p.Bandwidth = nil, nil
	}
	return p
}

// capable reports whether a plugin of the list declares a capability.
func (l *list) capable(name string) bool {
	for _, p := range l.conf.Plugins {
		if p.Network.Capabilities[name] {
			return true
		}
	}
	return false
}

// isolated reports whether the network has only the plugin loopback. A pod on such a network has no network.
func (l *list) isolated() bool {
	return !slices.ContainsFunc(l.conf.Plugins, func(p *libcni.PluginConfig) bool { return p.Network.Type != "loopback" })
}
