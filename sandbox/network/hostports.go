package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
)

// Host ports of pods on a bridge are one nftables table per network, whose maps
// say which port leads where. The portmap plugin starts nft or iptables some
// twenty times for the same. The table is always replaced as a whole by what the
// daemon knows, in one transaction, so that there is nothing to collect after a
// crash. For UDP the daemon also deletes connection tracking entries.

// hostPortPlan is, in the plan of an interface, that the daemon does its host
// ports. It is recorded: a later daemon does as this one did.
type hostPortPlan struct {
	Table  string `json:"table"`
	Bridge string `json:"bridge"`
	SNAT   bool   `json:"snat"`
}

// hostPortsPrefix begins the name of every such table; the name of the network
// follows.
const hostPortsPrefix = "criserver_hostports_"

// planKey is where a plan has it, beside what the CNI specification knows.
const planKey = "io.criserver.hostPorts"

// portmapConf is the configuration of the plugin with all that is done here.
type portmapConf struct {
	CNIVersion   string          `json:"cniVersion"`
	Name         string          `json:"name"`
	Type         string          `json:"type"`
	Backend      string          `json:"backend"`
	SNAT         *bool           `json:"snat"` // true by default
	Capabilities map[string]bool `json:"capabilities"`
}

// hostPortsOf returns how the daemon can do the host ports of a list, or nil
// where the plugin has to.
func hostPortsOf(conf *libcni.NetworkConfigList) *hostPortPlan {
	var first struct {
		Bridge    string `json:"bridge"`
		IsGateway bool   `json:"isGateway"`
		IsDefault bool   `json:"isDefaultGateway"`
		VLAN      int    `json:"vlan"`
	}
	if conf.Plugins[0].Network.Type != "bridge" || json.Unmarshal(conf.Plugins[0].Bytes, &first) != nil || !first.IsGateway && !first.IsDefault {
		return nil
	}
	if first.VLAN != 0 {
		return nil // the gateway is another interface than the bridge
	}
	isPortmap := func(p *libcni.PluginConfig) bool { return p.Network.Type == "portmap" }
	i := slices.IndexFunc(conf.Plugins, isPortmap)
	if i < 0 || slices.ContainsFunc(conf.Plugins[i+1:], isPortmap) {
		return nil
	}
	var c portmapConf
	if !decodeAll(conf.Plugins[i].Bytes, &c) || c.Backend == "iptables" || !c.Capabilities["portMappings"] {
		return nil
	}
	if first.Bridge == "" {
		first.Bridge = "cni0"
	}
	return &hostPortPlan{Table: hostPortsPrefix + conf.Name, Bridge: first.Bridge, SNAT: c.SNAT == nil || *c.SNAT}
}

// takeHostPorts makes the daemon do the host ports of a list as planned, if the
// kernel knows everything that a table needs. A nil plan leaves them to the
// plugin.
func (n *Network) takeHostPorts(ctx context.Context, l *list, plan *hostPortPlan, within time.Duration) error {
	if plan == nil {
		return nil
	}
	if err := nftWithin(ctx, within, (&portTable{plan: *plan}).script(), "--check", "-f", "-"); err != nil {
		return err
	}
	l.hostPorts = plan
	return nil
}

// withHostPorts returns the list without the plugin and with the plan to do it
// without.
func (l *list) withHostPorts() (*list, error) {
	less, err := l.without(func(p *libcni.PluginConfig) bool { return p.Network.Type == "portmap" })
	if err != nil {
		return nil, err
	}
	raw, err := encode(less.conf, less.masquerade, l.hostPorts)
	if err != nil {
		return nil, err
	}
	return fromRaw(raw)
}

// mapHostPorts does the host ports of a pod that was attached as planned.
func (n *Network) mapHostPorts(ctx context.Context, pod Pod, plan hostPortPlan, result json.RawMessage) error {
	addrs, err := addrsOf(result)
	if err != nil {
		return fmt.Errorf("host ports: %w", err)
	}
	if err := n.ports.change(ctx, plan, pod.ID, &podPorts{addrs, pod.PortMappings}); err != nil {
		return err
	}
	if err := deleteUDPFlows(ctx, pod.PortMappings, addrs); err != nil {
		return fmt.Errorf("host ports: %w", err)
	}
	if !plan.SNAT {
		return nil
	}
	// Answers to the host's loopback come in by the bridge. The table drops all else
	// that has no business there.
	if err := routeLocalnet(plan.Bridge, true); err != nil {
		return fmt.Errorf("host ports: %w", err)
	}
	return nil
}

// unmapHostPorts removes the host ports of a pod. result is the CNI result of ADD, or nil. A repeated call deletes the
// flows that an earlier call could not delete.
func (n *Network) unmapHostPorts(ctx context.Context, pod Pod, plan hostPortPlan, result json.RawMessage) error {
	if err := n.ports.change(ctx, plan, pod.ID, nil); err != nil {
		return err
	}
	addrs, err := addrsOf(result)
	if err != nil {
		addrs = nil // the pod was not attached
	}
	if err := deleteUDPFlows(ctx, pod.PortMappings, addrs); err != nil {
		return fmt.Errorf("host ports: %w", err)
	}
	return nil
}

// routeLocalnet opens the host's loopback to what comes in by a bridge, or closes it.
func routeLocalnet(bridge string, open bool) error {
	value := "0"
	if open {
		value = "1"
	}
	return os.WriteFile("/proc/sys/net/ipv4/conf/"+bridge+"/route_localnet", []byte(value), 0o644)
}

// addrsOf returns the addresses of eth0, the first of each family.
func addrsOf(result json.RawMessage) ([]netip.Prefix, error) {
	res, err := create.CreateFromBytes(result)
	if err != nil {
		return nil, err
	}
	cur, err := types100.NewResultFromResult(res)
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, ip := range cur.IPs {
		addr, ok := netip.AddrFromSlice(ip.Address.IP)
		addr = addr.Unmap()
		name, inside := interfaceOf(cur, ip)
		same := func(p netip.Prefix) bool { return p.Addr().Is4() == addr.Is4() }
		if !ok || !inside || name != IfName && name != "" || slices.ContainsFunc(out, same) {
			continue
		}
		bits, _ := ip.Address.Mask.Size()
		out = append(out, netip.PrefixFrom(addr, bits))
	}
	if len(out) == 0 {
		return nil, errors.New("the pod has got no address to map host ports to")
	}
	return out, nil
}
