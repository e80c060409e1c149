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

// Masquerading is the costliest thing that plugins do for a pod: the bridge
// plugin starts nft or iptables four to nine times to add the rule of a pod,
// and a dozen times to remove it again. One rule for the whole subnet says the
// same. So where the subnets are known from the configuration, the daemon keeps
// one nftables table per network, and tells the plugin to leave it alone.

// masqueradePrefix begins the name of every such table; the name of the network
// follows.
const masqueradePrefix = "criserver_masquerade_"

// masquerade is, in the plan of an interface, that the daemon does its masquerading.
// It is recorded: the subnets have to be masqueraded for as long as the pod is
// attached, whatever is configured by then.
type masquerade struct {
	Table   string         `json:"table"`
	Subnets []netip.Prefix `json:"subnets"`
}

// masqueradeKey is where a plan has it, beside what the CNI specification knows.
const masqueradeKey = "io.criserver.masquerade"

// bridgeConf is what counts of a plugin's configuration.
type bridgeConf struct {
	IPMasq  bool   `json:"ipMasq"`
	Backend string `json:"ipMasqBackend"`
	IPAM    struct {
		Type   string     `json:"type"`
		Subnet string     `json:"subnet"`
		Ranges [][]subnet `json:"ranges"`
	} `json:"ipam"`
	// A file that has these can name subnets in them.
	RuntimeConfig json.RawMessage `json:"runtimeConfig"`
	Args          json.RawMessage `json:"args"`
}

type subnet struct {
	Subnet string `json:"subnet"`
}

// masqueradeOf returns the table that can stand in for a plugin's own rules, or
// nil where the plugin has to do it: it does not masquerade, is told to use
// iptables, or its subnets are not in its configuration.
func masqueradeOf(network string, p *libcni.PluginConfig) *masquerade {
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

// takeMasquerade makes the daemon do the masquerading of a list, if it can.
func (n *Network) takeMasquerade(ctx context.Context, l *list, within time.Duration) error {
	conf := *l.conf
	conf.Plugins = make([]*libcni.PluginConfig, len(l.conf.Plugins))
	var found *masquerade
	for i, p := range l.conf.Plugins {
		conf.Plugins[i] = p
		m := masqueradeOf(conf.Name, p)
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
	if err := n.masquerades.offer(ctx, *found, within); err != nil {
		l.masqueradeFailed = true
		return err
	}
	raw, err := encode(&conf, found, nil)
	if err != nil {
		return err
	}
	taken, err := fromRaw(raw)
	if err != nil {
		return err
	}
	l.conf, l.planned, l.masquerade = taken.conf, taken.raw, taken.masquerade
	return nil
}

// script replaces the table as a whole, in one transaction.
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
