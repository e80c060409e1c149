package inspect

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/criserver/criserver/sandbox/network"
)

// Rules are the rules of the kernel that translate the addresses of pods.
type Rules struct {
	Masquerade []MasqueradeRule
	HostPorts  []HostPortRule
	// NFTables and IPTables say that the rules of the program were read. Without them nothing is known about missing
	// rules.
	NFTables, IPTables bool
	// ForwardDrop are the chains of nftables and iptables that drop forwarded packets unless a rule accepts them, and
	// that have no rule for the bridges of the pods.
	ForwardDrop []string
	// KubeProxy says that kube-proxy has rules on the node.
	KubeProxy bool
	// Errors says which rules could not be read.
	Errors []string
}

// MasqueradeRule gives packets of pods the address of the host.
type MasqueradeRule struct {
	Source netip.Prefix
	// Except are destinations whose packets keep the address of the pod.
	Except []netip.Prefix
	Chain  string // as the program names it, for example "inet TABLE CHAIN" or "nat CHAIN"
	By     Program
}

// HostPortRule forwards a port of the host to a pod.
type HostPortRule struct {
	Protocol string     // tcp, udp, sctp
	Host     netip.Addr // invalid for all addresses of the host
	HostPort uint16
	Pod      netip.Addr
	PodPort  uint16
	PodID    string // as a comment of the rule says, or ""
	Chain    string
	By       Program
}

// Program says with which program a rule can be listed.
type Program string

// The programs of rules.
const (
	NFTables Program = "nftables"
	IPTables Program = "iptables"
)

// Tables of the CNI plugins: portmap has a table in the families ip and ip6, bridge and ptp have one in the family
// inet.
const (
	portmapTable    = "cni_hostport"
	masqueradeTable = "cni_plugins_masquerade"
)

// table is an nftables table.
type table struct{ family, name string }

func (t table) String() string { return t.family + " " + t.name }

// readRules reads the rules of the networks. It reads only tables that belong to the daemon or to CNI plugins: the
// tables of kube-proxy can have many thousand rules. It executes iptables-save only if a plugin may use iptables.
func readRules(ctx context.Context, in Input) Rules {
	var r Rules
	var networks []network.Details
	networks = append(networks, in.Networks...)
	pluginRules := false
	for _, p := range in.Pods {
		for _, a := range p.Attachments {
			networks = append(networks, a.Network)
			pluginRules = pluginRules || mayUseIPTables(a.Network.Masquerade.By) || mayUseIPTables(a.Network.HostPorts.By)
		}
	}
	if err := r.readNFTables(ctx, networks); err != nil {
		r.Errors = append(r.Errors, "read the nftables rules: "+err.Error())
	} else {
		r.NFTables = true
	}
	if pluginRules {
		if err := r.readIPTables(ctx); err != nil {
			r.Errors = append(r.Errors, "read the iptables rules: "+err.Error())
		} else {
			r.IPTables = true
		}
	}
	return r
}

func mayUseIPTables(by network.NATMaker) bool {
	return by == network.NATPlugin || by == network.NATPluginIPTables
}

// forPod returns the rules that apply to the addresses of a pod, and the host ports that name the pod.
func (r *Rules) forPod(id string, addrs []netip.Addr) (masquerade []MasqueradeRule, ports []HostPortRule) {
	for _, m := range r.Masquerade {
		if slices.ContainsFunc(addrs, m.Source.Contains) {
			masquerade = append(masquerade, m)
		}
	}
	for _, p := range r.HostPorts {
		if p.PodID == id || p.PodID == "" && slices.Contains(addrs, p.Pod) {
			ports = append(ports, p)
		}
	}
	return masquerade, ports
}

// mentions reports whether a text has the name of a bridge as a word.
func mentions(text, bridge string) bool {
	for rest := text; ; {
		i := strings.Index(rest, bridge)
		if i < 0 {
			return false
		}
		before, after := i == 0 || !isWord(rest[i-1]), i+len(bridge) == len(rest) || !isWord(rest[i+len(bridge)])
		if before && after {
			return true
		}
		rest = rest[i+1:]
	}
}

func isWord(c byte) bool {
	return c == '_' || c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
