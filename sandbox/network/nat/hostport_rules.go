package nat

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// masqueradeMark is the mark of packets whose source address must become the address of the host:
// packets from loopback, and packets from the subnet of the pods, whose answers would otherwise not
// pass the host. The chain hostports sets the mark, and the chain postrouting masquerades. The
// portmap plugin uses the same mark.
const masqueradeMark = "0x2000"

// family has the elements of a table for IPv4 or IPv6.
type family struct {
	name, proto string   // "ip" and "ipv4", or "ip6" and "ipv6"
	addr        string   // the type of addresses in sets
	all, one    []string // the mappings for all addresses of the host, and for one address
	subnets     []string // of the pods
}

// script returns the commands for nft that replace the whole table in one transaction.
func (t *portTable) script() []byte {
	v4, v6 := &family{name: "ip", proto: "ipv4", addr: "ipv4_addr"}, &family{name: "ip6", proto: "ipv6", addr: "ipv6_addr"}
	ports := t.elements(v4, v6)
	var b bytes.Buffer
	name := t.plan.Table
	fmt.Fprintf(&b, "add table inet %[1]s\ndelete table inet %[1]s\ntable inet %[1]s {\n", name)
	set(&b, "set ports", "inet_proto . inet_service", "", ports)
	for _, f := range []*family{v4, v6} {
		set(&b, "map all_"+f.name, "inet_proto . inet_service : "+f.addr+" . inet_service", "", f.all)
		set(&b, "map one_"+f.name, "inet_proto . "+f.addr+" . inet_service : "+f.addr+" . inet_service", "", f.one)
		set(&b, "set pods_"+f.name, f.addr, "flags interval; auto-merge; ", f.subnets)
	}
	b.WriteString("\tchain hostports {\n")
	if t.plan.SNAT {
		mark(&b, "ip saddr 127.0.0.0/8")
	} else {
		b.WriteString("\t\tip daddr 127.0.0.0/8 return\n")
	}
	b.WriteString("\t\tip6 daddr ::1 return\n") // the kernel does not route packets from ::1 to a pod
	for _, f := range []*family{v4, v6} {
		mark(&b, f.name+" saddr @pods_"+f.name)
		fmt.Fprintf(&b, "\t\tmeta nfproto %[2]s dnat %[1]s to meta l4proto . %[1]s daddr . th dport map @one_%[1]s\n", f.name, f.proto)
		fmt.Fprintf(&b, "\t\tmeta nfproto %[2]s dnat %[1]s to meta l4proto . th dport map @all_%[1]s\n", f.name, f.proto)
	}
	b.WriteString("\t}\n")
	for _, hook := range []struct{ name, priority string }{{"prerouting", "dstnat"}, {"output", "-100"}} {
		fmt.Fprintf(&b, "\tchain %[1]s {\n\t\ttype nat hook %[1]s priority %[2]s;\n\t\tfib daddr type local jump hostports\n\t}\n", hook.name, hook.priority)
	}
	fmt.Fprintf(&b, "\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat;\n\t\tmeta mark & %[1]s == %[1]s ct status dnat masquerade\n\t}\n", masqueradeMark)
	// With route_localnet the kernel would deliver packets from pods to servers on the host's loopback. The answers of
	// pods still have the address of the bridge as destination in this chain, so the chain does not drop them.
	b.WriteString("\tchain guard {\n\t\ttype filter hook prerouting priority raw;\n\t\tiifname != \"lo\" ip daddr 127.0.0.0/8 drop\n\t}\n}\n")
	return b.Bytes()
}

// mark writes a rule that marks matching packets for masquerading.
func mark(b *bytes.Buffer, match string) {
	fmt.Fprintf(b, "\t\t%s meta l4proto . th dport @ports meta mark set meta mark | %s\n", match, masqueradeMark)
}

// set writes a set or a map.
func set(b *bytes.Buffer, what, kind, flags string, elements []string) {
	fmt.Fprintf(b, "\t%s { type %s; %s", what, kind, flags)
	if len(elements) > 0 {
		fmt.Fprintf(b, "elements = { %s }; ", strings.Join(elements, ", "))
	}
	b.WriteString("}\n")
}

// elements fills the sets and maps of both families and returns the host ports. If two pods have
// the same key, which the sandbox package prevents, the first pod gets the host port, because the
// kernel would refuse the whole table.
func (t *portTable) elements(v4, v6 *family) (ports []string) {
	seen := map[string]bool{}
	add := func(to *[]string, key, rest string) {
		if !seen[key] {
			seen[key] = true
			*to = append(*to, key+rest)
		}
	}
	for _, pod := range slices.Sorted(maps.Keys(t.pods)) {
		podPorts := t.pods[pod]
		for _, a := range podPorts.Addrs {
			f := v4
			if a.Addr().Is6() {
				f = v6
			}
			add(&f.subnets, a.Masked().String(), "")
			for _, m := range podPorts.Mappings {
				key, all, ok := m.key(a.Addr())
				if !ok {
					continue
				}
				to := &f.one
				if all {
					to, key = &f.all, fmt.Sprintf("%s . %d", m.Protocol, m.HostPort)
				}
				add(&ports, fmt.Sprintf("%s . %d", m.Protocol, m.HostPort), "")
				// The maps of both families may have the same key.
				if id := f.name + key; !seen[id] {
					seen[id] = true
					*to = append(*to, fmt.Sprintf("%s comment \"pod %s\" : %s . %d", key, pod, a.Addr(), m.ContainerPort))
				}
			}
		}
	}
	return ports
}

// key returns the key of the mapping in the map one_ip or one_ip6, for an address of the pod. all
// is true if the mapping is for all addresses of the host. ok is false if the mapping is for the
// other address family.
func (m PortMapping) key(pod netip.Addr) (key string, all, ok bool) {
	if m.HostIP == "" {
		return "", true, true
	}
	host, err := netip.ParseAddr(m.HostIP)
	host = host.Unmap()
	if err != nil || host.Is4() != pod.Is4() {
		return "", false, false
	}
	return fmt.Sprintf("%s . %s . %d", m.Protocol, host, m.HostPort), host.IsUnspecified(), true
}
