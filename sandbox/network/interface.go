package network

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// Interface is one place of a pod on one network. It is to be recorded before
// Attach, as Detach needs the same one, whatever is configured by then.
type Interface struct {
	Network string `json:"network"`
	Name    string `json:"name"` // of the interface inside the pod
	// MAC and IPs are what the pod asked for, empty where it left the choice to
	// the plugins. An address may have a prefix length.
	MAC string   `json:"mac,omitempty"`
	IPs []string `json:"ips,omitempty"`
	// Plan is the configuration list that the pod is attached and detached with.
	Plan json.RawMessage `json:"plan"`
	// Result is the CNI result as the last plugin gave it; nil before Attach.
	Result json.RawMessage `json:"result,omitempty"`
}

// Default returns the interface of the default network.
func Default(plan json.RawMessage) Interface { return Interface{Name: IfName, Plan: plan} }

func (i Interface) attachment(pod string) types.GCAttachment {
	return types.GCAttachment{ContainerID: pod, IfName: i.Name}
}

// Plan returns the configuration to attach a pod to the default network with.
func (n *Network) Plan(pod Pod) (json.RawMessage, error) {
	if err := n.Status(); err != nil {
		return nil, err
	}
	l := n.loaded.Load().list
	if l == nil { // replaced since
		return nil, n.Status()
	}
	l, err := n.trim(l, pod)
	if err != nil {
		return nil, err
	}
	return l.planned, nil
}

// PlanFor returns the configuration for an interface on the network that it
// names: the default one, or one of Config.Additional. ErrUnavailable when that
// is not configured, ErrInvalidArgument when it cannot do what is asked for.
func (n *Network) PlanFor(pod Pod, i Interface) (json.RawMessage, error) {
	loaded := n.loaded.Load()
	l := loaded.additional[i.Network]
	if l == nil && loaded.list != nil && loaded.list.conf.Name == i.Network {
		l = loaded.list
	}
	if l == nil {
		return nil, fmt.Errorf("no CNI network named %q in %q: %w", i.Network, n.cfg.ConfDirs, errdefs.ErrUnavailable)
	}
	if err := n.findPlugins(l); err != nil {
		return nil, err
	}
	for capability, asked := range map[string]bool{"mac": i.MAC != "", "ips": len(i.IPs) > 0} {
		if asked && !l.capable(capability) {
			return nil, fmt.Errorf("network %q has no plugin with the capability %q, which interface %q asks for: %w",
				i.Network, capability, i.Name, errdefs.ErrInvalidArgument)
		}
	}
	l, err := n.trim(l, pod.at(i))
	if err != nil {
		return nil, err
	}
	return l.planned, nil
}

// at returns what plugins are told of the pod for one of its interfaces. Host
// ports and bandwidth belong to eth0.
func (p Pod) at(i Interface) Pod {
	p.ifName, p.mac, p.ips = i.Name, i.MAC, i.IPs
	if i.Name != IfName {
		p.PortMappings, p.Bandwidth = nil, nil
	}
	return p
}

// capable says whether a plugin of the list declares a capability.
func (l *list) capable(name string) bool {
	for _, p := range l.conf.Plugins {
		if p.Network.Capabilities[name] {
			return true
		}
	}
	return false
}

// isolated says whether the network consists of loopback alone, which is how a
// pod is given none.
func (l *list) isolated() bool {
	return !slices.ContainsFunc(l.conf.Plugins, func(p *libcni.PluginConfig) bool { return p.Network.Type != "loopback" })
}
