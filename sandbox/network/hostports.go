package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/criserver/criserver/internal/oplock"
	"github.com/sirupsen/logrus"
)

// Host ports of pods on a bridge are one nftables table per network, whose maps
// say which port leads where. The portmap plugin starts nft or iptables some
// twenty times for the same. The table is always replaced as a whole by what the
// daemon knows, in one transaction, so that there is nothing to collect after a
// crash. What UDP needs besides, the removal of the kernel's memory of earlier
// datagrams, is the plugin's: it gets pods that have such a port.

// hostPortPlan is, in the plan of an interface, that the daemon does its host
// ports. It is recorded: a later daemon does as this one did.
type hostPortPlan struct {
	Table  string `json:"table"`
	Bridge string `json:"bridge"`
	SNAT   bool   `json:"snat"`
}

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
	return &hostPortPlan{Table: "criserver_hostports_" + conf.Name, Bridge: first.Bridge, SNAT: c.SNAT == nil || *c.SNAT}
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
	n.ports.know(*plan)
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
	out := map[string]any{}
	if err := json.Unmarshal(less.planned, &out); err != nil {
		return nil, err
	}
	out[planKey] = l.hostPorts
	raw, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	return fromRaw(raw)
}

// podPorts is a pod's part of a table.
type podPorts struct {
	addrs    []netip.Prefix // of eth0, with the lengths of their subnets
	mappings []PortMapping
}

// portTables is all tables as they shall be.
type portTables struct {
	turns oplock.Locks // by table, held while it is replaced

	mu     sync.Mutex // guards tables
	tables map[string]*portTable
}

type portTable struct {
	plan hostPortPlan
	pods map[string]podPorts
}

// know has ensure look after a table that may have been left by an earlier
// daemon, also when no pod is in it.
func (p *portTables) know(plan hostPortPlan) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.table(plan.Table).plan = plan
}

// table is called with mu held.
func (p *portTables) table(name string) *portTable {
	if p.tables == nil {
		p.tables = make(map[string]*portTable)
	}
	if p.tables[name] == nil {
		p.tables[name] = &portTable{pods: make(map[string]podPorts)}
	}
	return p.tables[name]
}

// set gives a pod its part of a table, or takes it when that is nil, and returns
// what it was.
func (p *portTables) set(plan hostPortPlan, pod string, part *podPorts) (before *podPorts) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.table(plan.Table)
	if part != nil {
		t.plan = plan // the latest says whether loopback counts
	}
	if was, ok := t.pods[pod]; ok {
		before = &was
	}
	delete(t.pods, pod)
	if part != nil {
		t.pods[pod] = *part
	}
	return before
}

// change sets a pod's part and has the kernel follow. When it fails nothing has
// changed.
func (p *portTables) change(ctx context.Context, plan hostPortPlan, pod string, part *podPorts) error {
	done, err := p.turns.Lock(ctx, plan.Table)
	if err != nil {
		return err
	}
	defer done()
	before := p.set(plan, pod, part)
	if before == nil && part == nil {
		return nil
	}
	if err := p.apply(ctx, plan.Table); err != nil {
		p.set(plan, pod, before)
		return fmt.Errorf("host ports: %w", err)
	}
	return nil
}

// apply is called in the table's turn.
func (p *portTables) apply(ctx context.Context, table string) error {
	p.mu.Lock()
	script := p.tables[table].script()
	p.mu.Unlock()
	return nft(ctx, script, "-f", "-")
}

// ensure restores tables that somebody flushed. With force it replaces all
// tables, also those that an earlier daemon left half done. It reports whether
// all tables are right. A table without any pod is there for its guard: the
// plugin opens the host's loopback and has no guard.
func (p *portTables) ensure(ctx context.Context, force bool) bool {
	p.mu.Lock()
	names := slices.Sorted(maps.Keys(p.tables))
	p.mu.Unlock()
	right := true
	for _, name := range names {
		err := p.ensureTable(ctx, name, force)
		if err != nil && ctx.Err() == nil {
			logrus.WithContext(ctx).WithError(err).WithField("table", name).Error("host ports could not be restored")
		}
		right = right && err == nil
	}
	return right
}

func (p *portTables) ensureTable(ctx context.Context, name string, force bool) error {
	done, err := p.turns.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer done()
	if !force {
		there, err := tableExists(ctx, name)
		if there || err != nil {
			return err
		}
		logrus.WithContext(ctx).WithField("table", name).Warn("host ports were gone and are restored")
	}
	return p.apply(ctx, name)
}

// mapHostPorts does the host ports of a pod that was attached as planned.
func (n *Network) mapHostPorts(ctx context.Context, pod Pod, plan hostPortPlan, result json.RawMessage) error {
	addrs, err := addrsOf(result)
	if err != nil {
		return fmt.Errorf("host ports: %w", err)
	}
	if plan.SNAT {
		// Answers to the host's loopback come in by the bridge. The table drops
		// all else that has no business there.
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+plan.Bridge+"/route_localnet", []byte("1"), 0o644); err != nil {
			return fmt.Errorf("host ports: %w", err)
		}
	}
	return n.ports.change(ctx, plan, pod.ID, &podPorts{addrs, pod.PortMappings})
}

// AdoptPorts notes the host ports of a pod that an earlier daemon attached,
// before Run.
func (n *Network) AdoptPorts(pod string, i Interface, mappings []PortMapping) {
	l, err := fromRaw(i.Plan)
	if err != nil || l.hostPorts == nil {
		return
	}
	addrs, err := addrsOf(i.Result)
	if err != nil {
		return // it was not attached to the end, and is about to be detached
	}
	n.ports.set(*l.hostPorts, pod, &podPorts{addrs, mappings})
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
