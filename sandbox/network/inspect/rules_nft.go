package inspect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/criserver/criserver/sandbox/network"
)

// The JSON of `nft --json list`, as libnftables-json(5) describes it, with the objects and fields that matter here.
type (
	nftObject struct {
		Chain *nftChain `json:"chain"`
		Rule  *nftRule  `json:"rule"`
		Map   *nftMap   `json:"map"`
	}
	nftChain struct {
		Family, Table, Name string
		Hook, Policy        string
	}
	nftRule struct {
		Family, Table, Chain, Comment string
		Expr                          []map[string]json.RawMessage
	}
	nftMap struct {
		Family, Table, Name string
		Elem                []json.RawMessage
	}
)

// listNFT executes nft and returns the objects that it lists.
func listNFT(ctx context.Context, args ...string) ([]nftObject, error) {
	out, err := listRules(ctx, "nft", append([]string{"--json", "list"}, args...)...)
	if err != nil {
		return nil, err
	}
	var doc struct {
		NFTables []nftObject `json:"nftables"`
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		return nil, fmt.Errorf("nft list %s: %w", strings.Join(args, " "), err)
	}
	return doc.NFTables, nil
}

// readNFTables reads the tables of the networks and of the plugins, and the policies of the chains for forwarding.
func (r *Rules) readNFTables(ctx context.Context, networks []network.Details) error {
	chains, err := listNFT(ctx, "chains")
	if err != nil {
		return err
	}
	wanted := []table{{"inet", masqueradeTable}, {"ip", portmapTable}, {"ip6", portmapTable}}
	for _, d := range networks {
		for _, nat := range []network.NAT{d.Masquerade, d.HostPorts} {
			if nat.Table != "" {
				wanted = append(wanted, table{"inet", nat.Table})
			}
		}
	}
	var found []table // without tables of other programs
	var errs []error
	for _, o := range chains {
		c := o.Chain
		if c == nil {
			continue
		}
		r.KubeProxy = r.KubeProxy || c.Name == "KUBE-SERVICES" || c.Table == "kube-proxy"
		t := table{c.Family, c.Table}
		if slices.Contains(wanted, t) && !slices.Contains(found, t) {
			found = append(found, t)
		}
		if c.Hook == "forward" && c.Policy == "drop" && slices.Contains([]string{"ip", "ip6", "inet"}, c.Family) {
			errs = append(errs, r.addForwardChain(ctx, c, networks))
		}
	}
	for _, t := range found {
		objects, err := listNFT(ctx, "table", t.family, t.name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, o := range objects {
			if o.Map == nil || isUsed(objects, o.Map.Name) {
				r.addNFT(t, o)
			}
		}
	}
	return errors.Join(errs...)
}

// addForwardChain adds a chain that drops forwarded packets by default, unless one of its rules names a bridge of the
// networks, or calls a chain of the plugin firewall.
func (r *Rules) addForwardChain(ctx context.Context, c *nftChain, networks []network.Details) error {
	out, err := listRules(ctx, "nft", "list", "chain", c.Family, c.Table, c.Name)
	if err != nil {
		return err
	}
	if strings.Contains(string(out), "CNI-FORWARD") || slices.ContainsFunc(networks, func(d network.Details) bool { return d.Bridge != "" && mentions(string(out), d.Bridge) }) {
		return nil
	}
	r.ForwardDrop = append(r.ForwardDrop, table{c.Family, c.Table}.String()+" "+c.Name)
	return nil
}

// isUsed reports whether a rule uses a map. Otherwise the elements of the map have no effect.
func isUsed(objects []nftObject, name string) bool {
	return slices.ContainsFunc(objects, func(o nftObject) bool {
		return o.Rule != nil && slices.ContainsFunc(o.Rule.Expr, func(e map[string]json.RawMessage) bool {
			return bytes.Contains(e["dnat"], []byte(`"@`+name+`"`))
		})
	})
}

// addNFT adds a rule, or the elements of a map with host ports.
func (r *Rules) addNFT(t table, o nftObject) {
	switch {
	case o.Map != nil:
		for _, e := range o.Map.Elem {
			if p, ok := mapElement(e); ok {
				p.Chain, p.By = t.String()+" "+o.Map.Name, NFTables
				r.HostPorts = append(r.HostPorts, p)
			}
		}
	case o.Rule != nil:
		chain := t.String() + " " + o.Rule.Chain
		p, m := o.Rule.parse()
		if p != nil {
			p.Chain, p.By = chain, NFTables
			r.HostPorts = append(r.HostPorts, *p)
		}
		// The plugin portmap masquerades packets from a pod to itself, which is no rule for outgoing packets.
		if m != nil && t.name != portmapTable {
			m.Chain, m.By = chain, NFTables
			r.Masquerade = append(r.Masquerade, *m)
		}
	}
}

// mapElement reads an element of the maps all_ip, all_ip6, one_ip and one_ip6 of the daemon: protocol, address of the
// host if the map has it, and port of the host, to address and port of the pod.
func mapElement(raw json.RawMessage) (p HostPortRule, ok bool) {
	var pair [2]json.RawMessage
	if json.Unmarshal(raw, &pair) != nil {
		return p, false
	}
	var commented struct {
		Elem struct {
			Val     json.RawMessage `json:"val"`
			Comment string          `json:"comment"`
		} `json:"elem"`
	}
	key := pair[0]
	if json.Unmarshal(key, &commented) == nil && commented.Elem.Val != nil {
		key = commented.Elem.Val
		p.PodID = strings.TrimPrefix(commented.Elem.Comment, "pod ")
	}
	from, to := concatenation(key), concatenation(pair[1])
	if len(from) < 2 || len(from) > 3 || len(to) != 2 {
		return p, false
	}
	p.Protocol = text(from[0])
	if len(from) == 3 {
		p.Host, _ = netip.ParseAddr(text(from[1]))
	}
	p.HostPort, p.PodPort = port(from[len(from)-1]), port(to[1])
	var err error
	p.Pod, err = netip.ParseAddr(text(to[0]))
	return p, err == nil && p.HostPort != 0
}

func concatenation(raw json.RawMessage) []json.RawMessage {
	var c struct {
		Concat []json.RawMessage `json:"concat"`
	}
	_ = json.Unmarshal(raw, &c) // nil for another expression
	return c.Concat
}

func text(raw json.RawMessage) (s string) {
	_ = json.Unmarshal(raw, &s) // "" for another expression
	return s
}

func port(raw json.RawMessage) (n uint16) {
	_ = json.Unmarshal(raw, &n) // 0 for another expression
	return n
}

// nftMatch is a statement "match" with a field of a packet on the left side.
type nftMatch struct {
	Op   string `json:"op"`
	Left struct {
		Payload struct{ Protocol, Field string } `json:"payload"`
	} `json:"left"`
	Right json.RawMessage `json:"right"`
}

// parse returns the rule as a host port or as masquerading. Both are nil for another rule.
func (n *nftRule) parse() (*HostPortRule, *MasqueradeRule) {
	ports, masq := HostPortRule{PodID: n.Comment}, MasqueradeRule{}
	var isPort, isMasquerade bool
	for _, e := range n.Expr {
		if raw, ok := e["match"]; ok {
			var m nftMatch
			if json.Unmarshal(raw, &m) != nil {
				continue
			}
			switch equal := m.Op == "==" || m.Op == "in"; {
			case m.Left.Payload.Field == "saddr" && equal:
				if p := prefixes(m.Right); len(p) == 1 {
					masq.Source = p[0]
				}
			case m.Left.Payload.Field == "daddr" && equal:
				if p := prefixes(m.Right); len(p) == 1 {
					ports.Host = p[0].Addr()
				}
			case m.Left.Payload.Field == "daddr" && m.Op == "!=":
				masq.Except = prefixes(m.Right)
			case m.Left.Payload.Field == "dport" && equal:
				ports.Protocol, ports.HostPort = m.Left.Payload.Protocol, port(m.Right)
			}
		}
		if raw, ok := e["dnat"]; ok {
			var d struct {
				Addr string `json:"addr"`
				Port uint16 `json:"port"`
			}
			if json.Unmarshal(raw, &d) == nil {
				ports.Pod, _ = netip.ParseAddr(d.Addr)
				ports.PodPort = d.Port
				isPort = ports.Pod.IsValid() && ports.HostPort != 0
			}
		}
		if _, ok := e["masquerade"]; ok {
			isMasquerade = masq.Source.IsValid()
		}
	}
	switch {
	case isPort:
		return &ports, nil
	case isMasquerade:
		return nil, &masq
	}
	return nil, nil
}

// prefixes returns an address, a prefix, or the elements of a set of both.
func prefixes(raw json.RawMessage) []netip.Prefix {
	var v struct {
		Prefix *struct {
			Addr string `json:"addr"`
			Len  int    `json:"len"`
		} `json:"prefix"`
		Set []json.RawMessage `json:"set"`
	}
	if bytes.HasPrefix(bytes.TrimSpace(raw), []byte(`"`)) {
		if a, err := netip.ParseAddr(text(raw)); err == nil {
			return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}
		}
		return nil
	}
	if json.Unmarshal(raw, &v) != nil {
		return nil
	}
	if v.Prefix != nil {
		if a, err := netip.ParseAddr(v.Prefix.Addr); err == nil {
			return []netip.Prefix{netip.PrefixFrom(a, v.Prefix.Len)}
		}
		return nil
	}
	var out []netip.Prefix
	for _, e := range v.Set {
		out = append(out, prefixes(e)...)
	}
	return out
}
