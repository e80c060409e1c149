package inspect

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
)

// The objects in the JSON of `nft --json list`, see libnftables-json(5), with the fields that this package uses.
type (
	// nftObject is one object of the list. One field is not nil, or the object has another kind.
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

// concatenation returns the parts of a concatenation.
func concatenation(raw json.RawMessage) []json.RawMessage {
	var c struct {
		Concat []json.RawMessage `json:"concat"`
	}
	_ = json.Unmarshal(raw, &c) // nil for another expression
	return c.Concat
}

// text returns the value of a string.
func text(raw json.RawMessage) (s string) {
	_ = json.Unmarshal(raw, &s) // "" for another expression
	return s
}

// port returns the value of a number.
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

// setConditions sets the fields of both kinds of rules that the match describes.
func (m *nftMatch) setConditions(ports *HostPortRule, masq *MasqueradeRule) {
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

// parse returns the rule as a host port or as masquerading. Both are nil for another rule.
func (n *nftRule) parse() (*HostPortRule, *MasqueradeRule) {
	ports, masq := HostPortRule{PodID: n.Comment}, MasqueradeRule{}
	var isPort, isMasquerade bool
	for _, e := range n.Expr {
		var m nftMatch
		if raw, ok := e["match"]; ok && json.Unmarshal(raw, &m) == nil {
			m.setConditions(&ports, &masq)
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
