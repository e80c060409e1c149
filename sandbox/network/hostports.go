package network

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/sandbox/network/nat"
)

// hostPortPlanKey is the key of nat.HostPorts in the JSON of a plan.
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
func planHostPorts(conf *libcni.NetworkConfigList) *nat.HostPorts {
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
	return &nat.HostPorts{Table: nat.HostPortsTable(conf.Name), Bridge: first.Bridge, SNAT: c.SNAT == nil || *c.SNAT}
}

// enableHostPorts sets the plan of a list if nft and the kernel support everything that the table needs. If the plan is
// nil, the plugin maps the host ports.
func enableHostPorts(ctx context.Context, l *list, plan *nat.HostPorts, timeout time.Duration) error {
	if plan == nil {
		return nil
	}
	if err := plan.Check(ctx, timeout); err != nil {
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
func (n *Network) mapHostPorts(ctx context.Context, pod Pod, plan nat.HostPorts, result json.RawMessage) (err error) {
	ctx, step := steps.Start(ctx, steps.HostPorts)
	defer step.EndWith(&err)
	addrs, err := podAddresses(result)
	if err != nil {
		return fmt.Errorf("map host ports: %w", err)
	}
	return n.ports.Map(ctx, plan, pod.ID, nat.PodPorts{Addrs: addrs, Mappings: pod.PortMappings})
}

// unmapHostPorts removes the host ports of a pod. result is the CNI result of ADD, or nil.
func (n *Network) unmapHostPorts(ctx context.Context, pod Pod, plan nat.HostPorts, result json.RawMessage) (err error) {
	ctx, step := steps.Start(ctx, steps.HostPorts)
	defer step.EndWith(&err)
	addrs, err := podAddresses(result)
	if err != nil {
		addrs = nil // the pod was not attached
	}
	return n.ports.Unmap(ctx, plan, pod.ID, nat.PodPorts{Addrs: addrs, Mappings: pod.PortMappings})
}
