package inspect

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// recreate is the remedy for faults that only a new pod does not have.
const recreate = "Delete the pod, so that it is created again."

// pod returns the problems of a pod.
func (d *diagnosis) pod(p *Pod) []Problem {
	if p.NotReady != "" {
		return nil
	}
	d.dns(p)
	for _, a := range p.Attachments {
		if a.Error != "" {
			d.add("record-unreadable", "record", a.Error, recreate)
		}
	}
	if p.HostNetwork || p.Error != "" {
		return d.take()
	}
	if p.NetNS.Inode == 0 {
		d.add("namespace-missing", p.NetNS.Path, "the network namespace does not exist", recreate)
		return d.take()
	}
	if p.NetNS.NameWrong {
		d.warn("namespace-name", p.NetNS.Name, "the path is not the network namespace of the pod, so ip netns and agents do not find the namespace", "Delete what is at the path, and restart the daemon, which restores the name.")
	}
	for i := range p.Interfaces {
		if l := &p.Interfaces[i]; l.Type == "loopback" && !l.Up {
			d.add("interface-down", l.Name, "the loopback interface is down", inNetNS(p, "ip link set lo up"))
		}
	}
	for i := range p.Attachments {
		d.attachment(p, &p.Attachments[i])
	}
	d.duplicates(p)
	d.nat(p)
	d.shaping(p)
	return d.take()
}

// inNetNS returns a remedy that runs a command in the namespace of a pod.
func inNetNS(p *Pod, command string) string {
	return fmt.Sprintf("Run `nsenter --net=%s %s`.", p.NetNS.Path, command)
}

// defaultRoutes checks that the pod has a default route of each family for which CNI has set one.
func (d *diagnosis) defaultRoutes(p *Pod, a *Attachment, i *Interface) {
	for _, want := range a.Want.Routes {
		if want.Dst.Bits() != 0 {
			continue
		}
		has := slices.ContainsFunc(p.Routes, func(r Route) bool { return r.Dst == want.Dst && r.Interface == i.Name })
		if has || !slices.ContainsFunc(a.Want.Addresses, func(w netip.Prefix) bool { return w.Addr().Is4() == want.Dst.Addr().Is4() }) {
			continue
		}
		gateway := want.Gateway
		for _, g := range a.Want.Gateways {
			if !gateway.IsValid() && g.Addr().Is4() == want.Dst.Addr().Is4() {
				gateway = g.Addr()
			}
		}
		via := ""
		if gateway.IsValid() {
			via = "via " + gateway.String() + " "
		}
		d.add("route-missing", i.Name, fmt.Sprintf("the pod has no default route for %s", familyName(want.Dst.Addr())), inNetNS(p, fmt.Sprintf("ip route add %s %sdev %s", want.Dst, via, i.Name)))
	}
}

func familyName(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// duplicates finds addresses of the pod that another pod on the same bridge has, too.
func (d *diagnosis) duplicates(p *Pod) {
	seen := make(map[netip.Addr]bool)
	all := p.addresses()
	for _, a := range p.Attachments {
		for _, w := range a.Want.Addresses {
			all = append(all, w.Addr())
		}
	}
	for _, a := range all {
		if seen[a] {
			continue
		}
		seen[a] = true
		for _, other := range d.owners[a] {
			if other != p && shareBridge(p, other) {
				d.add("address-in-use", a.String(), fmt.Sprintf("pod %s/%s (%s) has the same address", other.Namespace, other.Name, shortID(other.ID)), "Delete one of the two pods, so that it gets another address.")
			}
		}
	}
}

// shareBridge reports whether two pods are attached to one bridge. Networks without a bridge count as one network if
// they have the same name.
func shareBridge(p, q *Pod) bool {
	for _, a := range p.Attachments {
		for _, b := range q.Attachments {
			if a.Network.Bridge == b.Network.Bridge && (a.Network.Bridge != "" || a.Network.Name == b.Network.Name) {
				return true
			}
		}
	}
	return false
}

// shortID returns the part of an id that crictl shows.
func shortID(id string) string { return id[:min(len(id), 13)] }

// shaping checks that the limits of the pod are set.
func (d *diagnosis) shaping(p *Pod) {
	if p.WantShaping == nil || !slices.ContainsFunc(p.Attachments, func(a Attachment) bool { return a.Interface == "eth0" && a.Network.Bandwidth }) {
		return
	}
	for _, w := range []struct {
		ingress bool
		rate    uint64
		name    string
	}{{true, p.WantShaping.IngressRate, "to"}, {false, p.WantShaping.EgressRate, "from"}} {
		has := slices.ContainsFunc(p.Shaping, func(s Shaping) bool { return s.Ingress == w.ingress && s.Interface == "eth0" })
		if w.rate != 0 && !has {
			d.add("shaping-missing", "eth0", fmt.Sprintf("the traffic %s the pod is not limited to %d bit/s", w.name, w.rate), recreate)
		}
	}
}

// dns checks the resolv.conf of a pod.
func (d *diagnosis) dns(p *Pod) {
	switch dns := &p.DNS; {
	case dns.Path == "":
	case dns.Error != "":
		d.add("dns-unreadable", dns.Path, "the file cannot be read: "+dns.Error, "Check the file system of the directory.")
	case dns.Missing:
		d.add("dns-missing", dns.Path, "the resolv.conf of the pod does not exist, so new containers cannot start", recreate)
	case dns.Differs && dns.FromHost:
		d.warn("dns-host-changed", dns.Path, "the pod has a copy of the host's /etc/resolv.conf, which has changed since the pod was created", recreate)
	case dns.Differs:
		d.add("dns-differs", dns.Path, "the file differs from the DNS configuration of the pod", recreate)
	case len(dns.Servers) == 0 && dns.FromHost:
		d.warn("dns-empty", dns.Path, "the pod has no name server, because the host's /etc/resolv.conf has none", "Add a name server to /etc/resolv.conf of the host, and create the pod again.")
	case dns.FromHost && !p.HostNetwork && slices.ContainsFunc(dns.Servers, isLoopback):
		d.warn("dns-loopback", dns.Path, fmt.Sprintf("the name server %s is a loopback address, which is the pod itself and not the host", strings.Join(dns.Servers, ", ")), "Set resolvConf in the configuration of the kubelet to a file without loopback addresses, for example /run/systemd/resolve/resolv.conf.")
	}
}

func isLoopback(server string) bool {
	a, err := netip.ParseAddr(server)
	return err == nil && a.IsLoopback()
}
