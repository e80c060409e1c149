package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/criserver/criserver/sandbox/namespace"
)

// The daemon maps the host ports of the pods on a bridge by one nftables table for each network.
// The maps of the table have the pod and the port for each host port. The portmap plugin starts nft
// or iptables about twenty times for the same result. The daemon always replaces the whole table in
// one transaction, so a crash leaves no rules behind. For UDP the daemon also deletes connection
// tracking entries.

// hostPortPlan in the plan of an interface says that the daemon maps the host ports. It is part of
// the record of the pod, so that a later daemon removes the host ports in the same way.
type hostPortPlan struct {
	Table  string `json:"table"`
	Bridge string `json:"bridge"`
	SNAT   bool   `json:"snat"`
}

// hostPortsPrefix is the beginning of the names of these tables. The name of the network follows.
const hostPortsPrefix = "criserver_hostports_"

// hostPortPlanKey is the key of hostPortPlan in the JSON of a plan.
const hostPortPlanKey = "io.criserver.hostPorts"

// portmapConf has the options of the portmap plugin that the daemon supports.
type portmapConf struct {
	CNIVersion   string          `json:"cniVersion"`
	Name         string          `json:"name"`
	Type         string          `json:"type"`
	Backend      string          `json:"backend"`
	SNAT         *bool           `json:"snat"` // true by default
	Capabilities map[string]bool `json:"capabilities"`
}

// planHostPorts returns how the daemon maps the host ports of a list, or nil if only the plugin can map them.
func planHostPorts(conf *libcni.NetworkConfigList) *hostPortPlan {
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
		return nil // the gateway is on another interface than the bridge
	}
	isPortmap := func(p *libcni.PluginConfig) bool { return p.Network.Type == "portmap" }
	i := slices.IndexFunc(conf.Plugins, isPortmap)
	if i < 0 || slices.ContainsFunc(conf.Plugins[i+1:], isPortmap) {
		return nil
	}
	var c portmapConf
	if !decodeStrict(conf.Plugins[i].Bytes, &c) || c.Backend == "iptables" || !c.Capabilities["portMappings"] {
		return nil
	}
	if first.Bridge == "" {
		first.Bridge = "cni0"
	}
	return &hostPortPlan{Table: hostPortsPrefix + conf.Name, Bridge: first.Bridge, SNAT: c.SNAT == nil || *c.SNAT}
}

// enableHostPorts sets the plan of a list if nft and the kernel support everything that the table needs. If the plan is
// nil, the plugin maps the host ports.
func (n *Network) enableHostPorts(ctx context.Context, l *list, plan *hostPortPlan, timeout time.Duration) error {
	if plan == nil {
		return nil
	}
	if err := runNFTTimeout(ctx, timeout, (&portTable{plan: *plan}).script(), "--check", "-f", "-"); err != nil {
		return err
	}
	l.hostPorts = plan
	return nil
}

// withHostPorts returns the list without the portmap plugin and with the plan of the daemon.
func (l *list) withHostPorts() (*list, error) {
	shorter, err := l.without(func(p *libcni.PluginConfig) bool { return p.Network.Type == "portmap" })
	if err != nil {
		return nil, err
	}
	raw, err := encode(shorter.conf, shorter.masquerade, l.hostPorts)
	if err != nil {
		return nil, err
	}
	return parseList(raw)
}

// mapHostPorts maps the host ports of an attached pod.
func (n *Network) mapHostPorts(ctx context.Context, pod Pod, plan hostPortPlan, result json.RawMessage) error {
	addrs, err := podAddresses(result)
	if err != nil {
		return fmt.Errorf("map host ports: %w", err)
	}
	if err := n.ports.update(ctx, plan, pod.ID, &podPorts{addrs, pod.PortMappings}); err != nil {
		return err
	}
	if err := deleteUDPFlows(ctx, pod.PortMappings, addrs); err != nil {
		return fmt.Errorf("map host ports: %w", err)
	}
	if !plan.SNAT {
		return nil
	}
	// Answers to 127.0.0.1 arrive on the bridge. The chain guard of the table drops all other packets to 127.0.0.0/8.
	if err := setRouteLocalnet(plan.Bridge, true); err != nil {
		return fmt.Errorf("map host ports: %w", err)
	}
	return nil
}

// unmapHostPorts removes the host ports of a pod. result is the CNI result of ADD, or nil. A repeated call deletes the
// flows that an earlier call could not delete.
func (n *Network) unmapHostPorts(ctx context.Context, pod Pod, plan hostPortPlan, result json.RawMessage) error {
	if err := n.ports.update(ctx, plan, pod.ID, nil); err != nil {
		return err
	}
	addrs, err := podAddresses(result)
	if err != nil {
		addrs = nil // the pod was not attached
	}
	if err := deleteUDPFlows(ctx, pod.PortMappings, addrs); err != nil {
		return fmt.Errorf("remove host ports: %w", err)
	}
	return nil
}

// setRouteLocalnet says whether the kernel accepts packets to 127.0.0.0/8 that arrive on a bridge.
func setRouteLocalnet(bridge string, accept bool) error {
	sc := namespace.Sysctl{Path: "net/ipv4/conf/" + bridge + "/route_localnet", Value: "0"}
	if accept {
		sc.Value = "1"
	}
	return sc.Write()
}

// closeLoopback closes route_localnet of the bridge while the table with the chain guard is
// missing. apply opens it again.
func (p *portTables) closeLoopback(plan hostPortPlan) error {
	if err := setRouteLocalnet(plan.Bridge, false); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.table(plan.Table).localnetClosed = plan.SNAT
	return nil
}
