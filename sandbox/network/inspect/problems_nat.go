package inspect

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/criserver/criserver/sandbox/network"
)

// nat checks that the kernel has the rules which the networks of the pod need.
func (d *diagnosis) nat(p *Pod) {
	for _, a := range p.Attachments {
		d.masquerade(&a)
		if a.Interface == network.IfName {
			d.hostPorts(p, &a)
		}
	}
}

// rulesKnown reports whether the rules of a maker were read.
func (d *diagnosis) rulesKnown(by network.NATMaker) bool {
	r := &d.report.Rules
	switch by {
	case network.NATDaemon, network.NATPluginNFTables:
		return r.NFTables
	case network.NATPluginIPTables:
		return r.IPTables
	case network.NATPlugin:
		return r.NFTables && r.IPTables
	}
	return false
}

// restore is the remedy for missing rules of a maker.
func restore(nat network.NAT) string {
	if nat.By == network.NATDaemon {
		return fmt.Sprintf("Wait a minute, in which the daemon restores a deleted table; if only a rule is missing, run `nft delete table inet %s`, and the daemon restores the table.", nat.Table)
	}
	return "Delete the pod, so that the plugin makes the rules for the pod that replaces it."
}

// masquerade checks the addresses of an attachment.
func (d *diagnosis) masquerade(a *Attachment) {
	nat := a.Network.Masquerade
	if !d.rulesKnown(nat.By) {
		return
	}
	for _, w := range a.Want.Addresses {
		if nat.By == network.NATDaemon && !slices.ContainsFunc(a.Network.Subnets, func(s netip.Prefix) bool { return s.Contains(w.Addr()) }) {
			continue // the daemon masquerades only the subnets of the configuration
		}
		if !slices.ContainsFunc(d.report.Rules.Masquerade, func(m MasqueradeRule) bool { return m.Source.Contains(w.Addr()) }) {
			d.add("masquerade-missing", w.Addr().String(), fmt.Sprintf("no rule masquerades the address of the pod, so other machines do not answer the pod; %s is expected to have the rule", makerName(nat)), restore(nat))
		}
	}
}

func makerName(nat network.NAT) string {
	if nat.Table != "" {
		return "the nftables table inet " + nat.Table
	}
	return "the " + string(nat.By)
}

// hostPorts checks the rule of each host port and of each address family.
func (d *diagnosis) hostPorts(p *Pod, a *Attachment) {
	nat := a.Network.HostPorts
	if len(p.WantHostPorts) > 0 && nat.By == network.NATNone {
		d.warn("host-ports-unsupported", a.Network.Name, "the pod has host ports, but the network has no plugin that maps them", "Add the plugin portmap with the capability portMappings to the CNI configuration, and create the pod again.")
		return
	}
	if !d.rulesKnown(nat.By) {
		return
	}
	for _, m := range p.WantHostPorts {
		for _, w := range firstOfEachFamily(a.Want.Addresses) {
			host, ok := hostAddress(m, w)
			if !ok {
				continue
			}
			d.hostPort(nat, m, host, w)
		}
	}
}

// hostPort checks the rule of one host port for one address of the pod.
func (d *diagnosis) hostPort(nat network.NAT, m network.PortMapping, host, pod netip.Addr) {
	name := hostPortName(m, host)
	var other *HostPortRule
	for i := range d.report.Rules.HostPorts {
		r := &d.report.Rules.HostPorts[i]
		if r.Protocol != m.Protocol || int32(r.HostPort) != m.HostPort || r.Host != host || r.Pod.Is4() != pod.Is4() {
			continue
		}
		if r.Pod == pod && int32(r.PodPort) == m.ContainerPort {
			return
		}
		other = r
	}
	if other != nil {
		d.add("host-port-wrong", name, fmt.Sprintf("the rule in %s %s forwards the host port to %s and not to this pod", other.By, other.Chain, netip.AddrPortFrom(other.Pod, other.PodPort)), restore(nat))
		return
	}
	d.add("host-port-missing", name, fmt.Sprintf("no rule forwards the host port to %s; %s is expected to have the rule", netip.AddrPortFrom(pod, uint16(m.ContainerPort)), makerName(nat)), restore(nat))
}

// firstOfEachFamily returns the addresses to which host ports lead.
func firstOfEachFamily(addrs []netip.Prefix) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if !slices.ContainsFunc(out, func(o netip.Addr) bool { return o.Is4() == a.Addr().Is4() }) {
			out = append(out, a.Addr())
		}
	}
	return out
}

// hostAddress returns the address of the host of a mapping; invalid for all addresses. ok is false if the mapping is
// for the other family.
func hostAddress(m network.PortMapping, pod netip.Addr) (host netip.Addr, ok bool) {
	if m.HostIP == "" {
		return netip.Addr{}, true
	}
	host, err := netip.ParseAddr(m.HostIP)
	host = host.Unmap()
	if err != nil || host.Is4() != pod.Is4() {
		return netip.Addr{}, false
	}
	if host.IsUnspecified() {
		return netip.Addr{}, true
	}
	return host, true
}

func hostPortName(m network.PortMapping, host netip.Addr) string {
	if !host.IsValid() {
		return fmt.Sprintf("host port %d/%s", m.HostPort, m.Protocol)
	}
	return fmt.Sprintf("host port %s/%s", netip.AddrPortFrom(host, uint16(m.HostPort)), m.Protocol)
}
