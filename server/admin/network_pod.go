package admin

import (
	"strconv"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/sandbox/network/inspect"
)

// networkPod translates the network of a pod.
func networkPod(p *inspect.Pod) *adminv1.NetworkPod {
	out := &adminv1.NetworkPod{
		Id: p.ID, Namespace: p.Namespace, Name: p.Name, NotReadyReason: p.NotReady, HostNetwork: p.HostNetwork,
		NetnsPath: p.NetNS.Path, NetnsName: p.NetNS.Name, NetnsInode: p.NetNS.Inode, Error: p.Error, Problems: networkProblems(p.Problems),
		Dns: &adminv1.NetworkDNS{
			Path: p.DNS.Path, Servers: p.DNS.Servers, Searches: p.DNS.Searches, Options: p.DNS.Options, FromHost: p.DNS.FromHost,
		},
	}
	for i := range p.Interfaces {
		out.Interfaces = append(out.Interfaces, networkInterface(&p.Interfaces[i]))
	}
	for _, r := range p.Routes {
		out.Routes = append(out.Routes, &adminv1.NetworkRoute{
			Destination: r.Dst.String(), Gateway: address(r.Gateway), Interface: r.Interface, Source: address(r.Source), Metric: int32(r.Metric),
		})
	}
	for _, a := range p.Attachments {
		out.Attachments = append(out.Attachments, &adminv1.NetworkAttachment{
			Interface: a.Interface, Network: cniNetwork(a.Network), ResultFile: a.ResultFile, ResultFileExists: a.HasResultFile, Addresses: texts(a.Want.Addresses),
		})
	}
	addRules(out, p)
	for _, s := range p.Shaping {
		direction := "from pod"
		if s.Ingress {
			direction = "to pod"
		}
		out.Shaping = append(out.Shaping, &adminv1.NetworkShaping{Interface: s.Interface, Direction: direction, Rate: s.Rate, Device: s.Device})
	}
	return out
}

func networkInterface(i *inspect.Interface) *adminv1.NetworkInterface {
	out := &adminv1.NetworkInterface{Link: networkLink(&i.Link)}
	if i.Peer != nil {
		out.Host = networkLink(i.Peer)
	}
	if i.Port != nil {
		out.Port = &adminv1.NetworkPort{Bridge: i.Port.Bridge, State: i.Port.State, Hairpin: i.Port.Hairpin, Isolated: i.Port.Isolated}
		for _, v := range i.Port.VLANs {
			out.Port.Vlans = append(out.Port.Vlans, vlanText(v))
		}
	}
	return out
}

// vlanText returns a VLAN as `bridge vlan` shows it.
func vlanText(v inspect.VLAN) string {
	text := strconv.Itoa(v.ID)
	if v.PVID {
		text += " pvid"
	}
	if v.Untagged {
		text += " untagged"
	}
	return text
}

// addRules adds the rules that translate the addresses of a pod.
func addRules(out *adminv1.NetworkPod, p *inspect.Pod) {
	for _, m := range p.Masquerade {
		out.MasqueradeRules = append(out.MasqueradeRules, &adminv1.MasqueradeRule{
			Source: m.Source.String(), Except: texts(m.Except), Program: string(m.By), Chain: m.Chain,
		})
	}
	for _, r := range p.HostPorts {
		family := "ipv6"
		if r.Pod.Is4() {
			family = "ipv4"
		}
		out.HostPortRules = append(out.HostPortRules, &adminv1.HostPortRule{
			Family: family, Protocol: r.Protocol, HostAddress: address(r.Host), HostPort: uint32(r.HostPort),
			PodAddress: address(r.Pod), PodPort: uint32(r.PodPort), Program: string(r.By), Chain: r.Chain,
		})
	}
}
