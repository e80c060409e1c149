package inspect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/criserver/criserver/sandbox/network"
)

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
