package network

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/containernetworking/cni/libcni"
)

// Masquerading is the most expensive work of the plugins: the bridge plugin starts nft or iptables
// four to nine times to add the rule of a pod, and a dozen times to remove the rule. One rule for
// the whole subnet has the same effect. If the configuration has the subnets, the daemon keeps one
// nftables table for each network and sets ipMasq of the plugin to false.

// masqueradePrefix is the beginning of the names of these tables. The name of the network follows.
const masqueradePrefix = "criserver_masquerade_"

// masquerade in the plan of an interface says that the daemon masquerades the subnets. It is part of the record of the
// pod, because the subnets must be masqueraded while the pod is attached, even if the configuration has changed.
type masquerade struct {
	Table   string         `json:"table"`
	Subnets []netip.Prefix `json:"subnets"`
}

// masqueradePlanKey is the key of masquerade in the JSON of a plan.
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
func planMasquerade(network string, p *libcni.PluginConfig) *masquerade {
	var c bridgeConf
	if p.Network.Type != "bridge" && p.Network.Type != "ptp" || json.Unmarshal(p.Bytes, &c) != nil {
		return nil
	}
	if !c.IPMasq || c.Backend == "iptables" || c.IPAM.Type != "host-local" || c.RuntimeConfig != nil || c.Args != nil {
		return nil
	}
	m := &masquerade{Table: masqueradePrefix + network}
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
	var found *masquerade
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
	if err := n.masquerades.prepare(ctx, *found, timeout); err != nil {
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

// script returns the commands for nft that replace the whole table in one transaction.
func (m masquerade) script() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "add table inet %[1]s\ndelete table inet %[1]s\nadd table inet %[1]s\n", m.Table)
	fmt.Fprintf(&b, "add chain inet %s postrouting { type nat hook postrouting priority srcnat; }\n", m.Table)
	for _, s := range m.Subnets {
		family, multicast := "ip", "224.0.0.0/4"
		if s.Addr().Is6() {
			family, multicast = "ip6", "ff00::/8"
		}
		fmt.Fprintf(&b, "add rule inet %s postrouting %s saddr %s %s daddr != { %s, %s } masquerade\n", m.Table, family, s, family, s, multicast)
	}
	return b.Bytes()
}
