package inspect

import (
	"fmt"
	"slices"
)

// attachment checks an interface of a pod, its other end, and the bridge.
func (d *diagnosis) attachment(p *Pod, a *Attachment) {
	at := slices.IndexFunc(p.Interfaces, func(i Interface) bool { return i.Name == a.Interface })
	if at < 0 {
		if a.Want.MAC != "" || len(a.Want.Addresses) > 0 {
			d.add("interface-missing", a.Interface, "the pod does not have the interface of the network "+a.Network.Name, recreate)
		}
		return
	}
	i := &p.Interfaces[at]
	d.link(p, i)
	d.peer(p, a, i)
	if a.Want.MAC != "" && i.MAC != "" && i.MAC != a.Want.MAC && !p.Guest {
		d.warn("mac-changed", i.Name, fmt.Sprintf("the interface has the MAC address %s, but CNI has set %s", i.MAC, a.Want.MAC), inNetNS(p, fmt.Sprintf("ip link set %s address %s", i.Name, a.Want.MAC)))
	}
	for _, lease := range a.MissingLeases {
		d.add("lease-missing", lease.String(), fmt.Sprintf("the address is not leased to the pod in %s, so another pod can get it", a.Network.LeaseDir), recreate)
	}
	if p.Guest {
		return // the addresses and routes may be inside the guest
	}
	for _, want := range a.Want.Addresses {
		if !slices.Contains(i.Addresses, want) {
			d.add("address-missing", i.Name, fmt.Sprintf("the interface does not have the address %s, which CNI has set", want), inNetNS(p, fmt.Sprintf("ip addr add %s dev %s", want, i.Name)))
		}
	}
	d.defaultRoutes(p, a, i)
}

// link checks an interface in the namespace of the pod.
func (d *diagnosis) link(p *Pod, i *Interface) {
	switch {
	case !i.Up:
		d.add("interface-down", i.Name, "the interface of the pod is down", inNetNS(p, fmt.Sprintf("ip link set %s up", i.Name)))
	case !i.Carrier && (i.Peer == nil || i.Peer.Up):
		d.add("no-carrier", i.Name, "the interface of the pod has no carrier", "Look at the other end with `ip -details link show`, and bring it up.")
	}
}

// peer checks the interface of the host, its bridge, and the MTU of all three.
func (d *diagnosis) peer(p *Pod, a *Attachment, i *Interface) {
	if a.Network.MTU != 0 && i.MTU != a.Network.MTU {
		d.add("mtu", i.Name, fmt.Sprintf("the MTU is %d bytes, but the network %s has %d", i.MTU, a.Network.Name, a.Network.MTU), inNetNS(p, fmt.Sprintf("ip link set %s mtu %d", i.Name, a.Network.MTU)))
	}
	if i.Peer == nil {
		if i.HasPeer {
			d.add("peer-missing", i.Name, "the other end of the interface is not on the host", recreate)
		}
		return
	}
	host := i.Peer
	if !host.Up {
		d.add("interface-down", host.Name, fmt.Sprintf("the interface of the host is down, so %s has no carrier", i.Name), fmt.Sprintf("Run `ip link set %s up`.", host.Name))
	}
	if i.Type != "veth" {
		return
	}
	if i.MTU != host.MTU {
		d.add("mtu", host.Name, fmt.Sprintf("the MTU of %s in the pod is %d bytes, and the MTU of %s on the host is %d, so large packets are lost", i.Name, i.MTU, host.Name, host.MTU), equalMTU(p, a, i))
	}
	d.port(a, i)
}

// equalMTU returns the remedy for different MTUs of the two ends: the MTU of the configuration, or the larger of both,
// because the kernel gives both ends the same MTU, and a bridge adapts to the smallest MTU of its ports.
func equalMTU(p *Pod, a *Attachment, i *Interface) string {
	want := a.Network.MTU
	if want == 0 {
		want = max(i.MTU, i.Peer.MTU)
	}
	if want == i.MTU {
		return fmt.Sprintf("Run `ip link set %s mtu %d`.", i.Peer.Name, want)
	}
	return inNetNS(p, fmt.Sprintf("ip link set %s mtu %d", i.Name, want))
}

func (d *diagnosis) findBridge(name string) *Bridge {
	for i := range d.report.Bridges {
		if b := &d.report.Bridges[i]; b.Name == name && !b.Missing {
			return b
		}
	}
	return nil
}

// port checks the port of the bridge.
func (d *diagnosis) port(a *Attachment, i *Interface) {
	host, bridge := i.Peer, a.Network.Bridge
	if bridge == "" || a.Network.VLAN != 0 && i.Port == nil {
		return
	}
	if i.Port == nil || i.Port.Bridge != bridge {
		d.add("not-a-port", host.Name, "the interface of the host is not a port of the bridge "+bridge, fmt.Sprintf("Run `ip link set %s master %s`.", host.Name, bridge))
		return
	}
	// The kernel sets both states at once, up to a second after the link has come up.
	if host.State == "up" && i.Port.State != "" && i.Port.State != "forwarding" {
		d.add("port-state", host.Name, fmt.Sprintf("the port of bridge %s is in the state %s and does not forward frames", bridge, i.Port.State), fmt.Sprintf("Wait for the spanning tree protocol, or run `ip link set %s type bridge stp_state 0`.", bridge))
	}
	if b := d.findBridge(bridge); b != nil && b.MTU != host.MTU && host.MTU == i.MTU {
		d.add("mtu", bridge, fmt.Sprintf("the MTU of the bridge is %d bytes, and the MTU of the pod is %d, so large packets are lost", b.MTU, i.MTU), fmt.Sprintf("Run `ip link set %s mtu %d`, or create the pod again.", bridge, i.MTU))
	}
}
