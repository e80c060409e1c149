package network

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// masqueradeMark is the bit by which a packet remembers, from where its
// destination was changed to where its source is, that the pod must answer the
// host: it came from loopback, or from the same subnet, whose pods would answer
// each other past the host. It is the bit that the portmap plugin uses.
const masqueradeMark = "0x2000"

// family is half of a table: the rules speak of IPv4 or of IPv6.
type family struct {
	name, proto string // "ip" and "ipv4", "ip6" and "ipv6"
	addr        string // the type of sets
	all, one    []string
	subnets     []string
}

// script replaces the table as a whole, in one transaction.
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
	b.WriteString("\t\tip6 daddr ::1 return\n") // the kernel routes it nowhere else
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
	// With route_localnet the kernel would let pods at what listens on the
	// host's loopback. Answers still have the bridge's address here.
	b.WriteString("\tchain guard {\n\t\ttype filter hook prerouting priority raw;\n\t\tiifname != \"lo\" ip daddr 127.0.0.0/8 drop\n\t}\n}\n")
	return b.Bytes()
}

func mark(b *bytes.Buffer, match string) {
	fmt.Fprintf(b, "\t\t%s meta l4proto . th dport @ports meta mark set meta mark | %s\n", match, masqueradeMark)
}

func set(b *bytes.Buffer, what, kind, flags string, elements []string) {
	fmt.Fprintf(b, "\t%s { type %s; %s", what, kind, flags)
	if len(elements) > 0 {
		fmt.Fprintf(b, "elements = { %s }; ", strings.Join(elements, ", "))
	}
	b.WriteString("}\n")
}

// elements fills the sets and maps of both families and returns the host ports.
// A key that two pods have, which their claims rule out, is the first one's, as
// the kernel would refuse them all.
func (t *portTable) elements(v4, v6 *family) (ports []string) {
	seen := map[string]bool{}
	add := func(to *[]string, key, rest string) {
		if !seen[key] {
			seen[key] = true
			*to = append(*to, key+rest)
		}
	}
	for _, pod := range slices.Sorted(maps.Keys(t.pods)) {
		part := t.pods[pod]
		for _, a := range part.addrs {
			f := v4
			if a.Addr().Is6() {
				f = v6
			}
			add(&f.subnets, a.Masked().String(), "")
			for _, m := range part.mappings {
				key, all, ok := m.key(a.Addr())
				if !ok {
					continue
				}
				to := &f.one
				if all {
					to, key = &f.all, fmt.Sprintf("%s . %d", m.Protocol, m.HostPort)
				}
				add(&ports, fmt.Sprintf("%s . %d", m.Protocol, m.HostPort), "")
				// Keys of different maps must not be taken for one another.
				if id := f.name + key; !seen[id] {
					seen[id] = true
					*to = append(*to, fmt.Sprintf("%s comment \"pod %s\" : %s . %d", key, pod, a.Addr(), m.ContainerPort))
				}
			}
		}
	}
	return ports
}

// key is the mapping's in the map of one address, for a pod's address of its
// family; all says that it is for every address of the host instead. It is not
// ok where the mapping is of the other family.
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
