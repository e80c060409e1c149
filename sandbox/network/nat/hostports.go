package nat

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"time"

	"github.com/criserver/criserver/sandbox/namespace"
)

// The daemon maps the host ports of the pods on a bridge by one nftables table for each network.
// The maps of the table have the pod and the port for each host port. The portmap plugin starts nft
// or iptables about twenty times for the same result. The daemon always replaces the whole table in
// one transaction, so a crash leaves no rules behind. For UDP the daemon also deletes connection
// tracking entries.

// HostPorts says how the daemon maps the host ports of the pods on a bridge. It is part of the
// record of the pod, so that a later daemon removes the host ports in the same way.
type HostPorts struct {
	Table  string `json:"table"`
	Bridge string `json:"bridge"`
	// SNAT makes the host ports reachable at 127.0.0.1.
	SNAT bool `json:"snat"`
}

// hostPortsPrefix is the beginning of the names of these tables. The name of the network follows.
const hostPortsPrefix = "criserver_hostports_"

// HostPortsTable returns the name of the table of host ports of a network.
func HostPortsTable(network string) string { return hostPortsPrefix + network }

// Check checks whether nft and the kernel support everything that the table needs. It changes nothing. The error is
// context.DeadlineExceeded if nft has not ended after timeout.
func (h HostPorts) Check(ctx context.Context, timeout time.Duration) error {
	return runNFTTimeout(ctx, timeout, (&portTable{plan: h}).script(), "--check", "-f", "-")
}

// PortMapping is an element of the capability portMappings. The JSON has the form of the CNI conventions.
type PortMapping struct {
	HostPort      int32  `json:"hostPort"`
	ContainerPort int32  `json:"containerPort"`
	Protocol      string `json:"protocol"` // "tcp", "udp" or "sctp"
	HostIP        string `json:"hostIP,omitempty"`
}

// PodPorts are the host ports of a pod.
type PodPorts struct {
	// Addrs are the first address of each family of eth0, with the prefix lengths of their subnets.
	Addrs    []netip.Prefix
	Mappings []PortMapping
}

// Map maps the host ports of an attached pod.
func (p *HostPortTables) Map(ctx context.Context, plan HostPorts, pod string, ports PodPorts) error {
	if err := p.update(ctx, plan, pod, &ports); err != nil {
		return err
	}
	if err := deleteUDPFlows(ctx, ports.Mappings, ports.Addrs); err != nil {
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

// Unmap removes the host ports of a pod. A repeated
// call deletes the flows that an earlier call could not delete.
func (p *HostPortTables) Unmap(ctx context.Context, plan HostPorts, pod string, ports PodPorts) error {
	if err := p.update(ctx, plan, pod, nil); err != nil {
		return err
	}
	if err := deleteUDPFlows(ctx, ports.Mappings, ports.Addrs); err != nil {
		return fmt.Errorf("remove host ports: %w", err)
	}
	return nil
}

// Restore adds the host ports of a pod that an earlier daemon has mapped. It does not change the kernel's table.
func (p *HostPortTables) Restore(plan HostPorts, pod string, ports PodPorts) {
	p.set(plan, pod, &ports)
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
func (p *HostPortTables) closeLoopback(plan HostPorts) error {
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
