package nat

import (
	"bytes"
	"fmt"
	"net/netip"
)

// Masquerading is the most expensive work of the plugins: the bridge plugin starts nft or iptables
// four to nine times to add the rule of a pod, and a dozen times to remove the rule. One rule for
// the whole subnet has the same effect. If the configuration has the subnets, the daemon keeps one
// nftables table for each network and sets ipMasq of the plugin to false.

// masqueradePrefix is the beginning of the names of these tables. The name of the network follows.
const masqueradePrefix = "criserver_masquerade_"

// MasqueradeTable returns the name of the table for masquerading of a network.
func MasqueradeTable(network string) string { return masqueradePrefix + network }

// Masquerade says that the daemon masquerades the subnets. It is part of the record of the
// pod, because the subnets must be masqueraded while the pod is attached, even if the configuration has changed.
type Masquerade struct {
	Table   string         `json:"table"`
	Subnets []netip.Prefix `json:"subnets"`
}

// script returns the commands for nft that replace the whole table in one transaction.
func (m Masquerade) script() []byte {
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
