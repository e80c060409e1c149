package inspect

import (
	"slices"

	"github.com/vishvananda/netlink"
)

// interfacesOf returns the interfaces of a pod with their other ends on the host.
func interfacesOf(pod, host *netState, ports map[int]portState) []Interface {
	var out []Interface
	for _, l := range pod.links {
		i := Interface{Link: pod.link(l)}
		if isTunnelDefault(l) {
			continue
		}
		a := l.Attrs()
		i.HasPeer = slices.Contains([]string{"veth", "macvlan", "ipvlan", "vlan"}, l.Type())
		if peer := host.byIndex[a.ParentIndex]; i.HasPeer && peer != nil && isPeer(l, peer) {
			link := host.link(peer)
			i.Peer = &link
			i.Port = portOf(host, peer, ports)
		}
		out = append(out, i)
	}
	return out
}

// isTunnelDefault reports whether the kernel creates an interface in every network namespace when a tunnel module is
// loaded. Such an interface is down and belongs to no network.
func isTunnelDefault(l netlink.Link) bool {
	return slices.Contains([]string{"tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"}, l.Attrs().Name)
}

// isPeer reports whether an interface of the host belongs to an interface of a pod that names its index. The index
// alone is not sufficient: the other end of a veth pair can be in a third network namespace.
func isPeer(inPod, onHost netlink.Link) bool {
	if inPod.Type() != "veth" {
		return true
	}
	return onHost.Type() == "veth" && onHost.Attrs().ParentIndex == inPod.Attrs().Index
}

// portOf returns how an interface of the host is attached to a bridge, or nil.
func portOf(host *netState, l netlink.Link, ports map[int]portState) *Port {
	bridge := host.byIndex[l.Attrs().MasterIndex]
	if bridge == nil || bridge.Type() != "bridge" {
		return nil
	}
	s := ports[l.Attrs().Index]
	p := &Port{Bridge: bridge.Attrs().Name, State: s.state, Hairpin: s.hairpin, Isolated: s.isolated}
	if ports[bridge.Attrs().Index].vlanFiltering {
		p.VLANs = s.vlans
	}
	return p
}

// addNetworks adds the configured networks and the networks that pods are attached to.
func (r *Report) addNetworks(in Input) {
	for _, d := range in.Networks {
		r.Networks = append(r.Networks, Network{Details: d, Configured: true})
	}
	for _, p := range r.Pods {
		for _, a := range p.Attachments {
			if a.Error != "" {
				continue
			}
			i := slices.IndexFunc(r.Networks, func(n Network) bool { return n.Name == a.Network.Name })
			if i < 0 {
				r.Networks = append(r.Networks, Network{Details: a.Network})
				i = len(r.Networks) - 1
			}
			if p.NotReady == "" {
				r.Networks[i].Pods++
			}
		}
	}
}

// bridgesOf returns the bridges of the networks and the bridges that pods are attached to.
func bridgesOf(r *Report, host *netState, ports map[int]portState) []Bridge {
	var names []string
	owners := make(map[int]string) // the pod by index of the interface of the host
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, n := range r.Networks {
		if n.Bridge != "" && (n.Pods > 0 || host.byName(n.Bridge) != nil) {
			add(n.Bridge)
		}
	}
	for _, p := range r.Pods {
		for _, i := range p.Interfaces {
			if i.Port != nil {
				add(i.Port.Bridge)
			}
			if i.Peer != nil && i.Type == "veth" {
				owners[i.Peer.Index] = p.ID
			}
		}
	}
	out := make([]Bridge, 0, len(names))
	for _, name := range names {
		b := Bridge{Link: Link{Name: name}, Missing: true, WantAddresses: wantGateways(r, name)}
		if l := host.byName(name); l != nil && l.Type() == "bridge" {
			b.Link, b.Missing = host.link(l), false
			b.STP, b.VLANs = ports[l.Attrs().Index].stp, ports[l.Attrs().Index].vlanFiltering
			b.RouteLocalnet = sysctl("net/ipv4/conf/" + name + "/route_localnet")
			for _, p := range host.links {
				if p.Attrs().MasterIndex == l.Attrs().Index {
					b.Ports = append(b.Ports, BridgePort{Name: p.Attrs().Name, Type: p.Type(), Pod: owners[p.Attrs().Index]})
				}
			}
		}
		out = append(out, b)
	}
	return out
}
