package network

import (
	"context"
	"encoding/json"
	"net/netip"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/criserver/criserver/sandbox/network/nat"
)

// masqueradePlanKey is the key of nat.Masquerade in the JSON of a plan.
const masqueradePlanKey = "io.criserver.masquerade"

// bridgeConf has the options of a plugin that matter for masquerading.
type bridgeConf struct {
	IPMasq  bool   `json:"ipMasq"`
	Backend string `json:"ipMasqBackend"`
	IPAM    struct {
		Type   string     `json:"type"`
		Subnet string     `json:"subnet"`
		Ranges [][]subnet `json:"ranges"`
	} `json:"ipam"`
	// These options may have further subnets.
	RuntimeConfig json.RawMessage `json:"runtimeConfig"`
	Args          json.RawMessage `json:"args"`
}

type subnet struct {
	Subnet string `json:"subnet"`
}

// planMasquerade returns the table that replaces the rules of a plugin. It returns nil if the
// plugin does not masquerade, must use iptables, or has no subnets in its configuration.
func planMasquerade(network string, p *libcni.PluginConfig) *nat.Masquerade {
	var c bridgeConf
	if p.Network.Type != "bridge" && p.Network.Type != "ptp" || json.Unmarshal(p.Bytes, &c) != nil {
		return nil
	}
	if !c.IPMasq || c.Backend == "iptables" || c.IPAM.Type != "host-local" || c.RuntimeConfig != nil || c.Args != nil {
		return nil
	}
	m := &nat.Masquerade{Table: nat.MasqueradeTable(network)}
	sets := c.IPAM.Ranges
	if c.IPAM.Subnet != "" {
		sets = append(sets, []subnet{{c.IPAM.Subnet}})
	}
	for _, set := range sets {
		for _, s := range set {
			prefix, err := netip.ParsePrefix(s.Subnet)
			if err != nil {
				return nil
			}
			m.Subnets = append(m.Subnets, prefix.Masked())
		}
	}
	if len(m.Subnets) == 0 {
		return nil
	}
	return m
}

// enableMasquerade creates the table of a list and sets ipMasq of the plugin to false, if the daemon can masquerade.
func (n *Network) enableMasquerade(ctx context.Context, l *list, timeout time.Duration) error {
	conf := *l.conf
	conf.Plugins = make([]*libcni.PluginConfig, len(l.conf.Plugins))
	var found *nat.Masquerade
	for i, p := range l.conf.Plugins {
		conf.Plugins[i] = p
		m := planMasquerade(conf.Name, p)
		if m == nil || found != nil {
			continue
		}
		off, err := libcni.InjectConf(p, map[string]any{"ipMasq": false})
		if err != nil {
			return err
		}
		conf.Plugins[i], found = off, m
	}
	if found == nil {
		return nil
	}
	if err := n.masquerades.Prepare(ctx, *found, timeout); err != nil {
		l.masqueradePending = true
		return err
	}
	raw, err := encode(&conf, found, nil)
	if err != nil {
		return err
	}
	planned, err := parseList(raw)
	if err != nil {
		return err
	}
	l.conf, l.planned, l.masquerade = planned.conf, planned.raw, planned.masquerade
	return nil
}
