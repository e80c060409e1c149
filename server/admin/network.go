package admin

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/sandbox/network"
	"github.com/criserver/criserver/sandbox/network/inspect"
)

// Networks inspects the networks of the node.
type Networks interface {
	InspectNetwork(ctx context.Context) *inspect.Report
}

// InspectNetwork reports the state of the networks of the node and of the pods.
//
// Errors: NotFound if the pod does not exist, and InvalidArgument if several pods match.
func (s *Server) InspectNetwork(ctx context.Context, req *adminv1.InspectNetworkRequest) (*adminv1.InspectNetworkResponse, error) {
	r := s.cfg.Networks.InspectNetwork(ctx)
	// The whole report is necessary for one pod, too: two pods can have the same address.
	if req.GetPod() != "" {
		candidates := make([]candidate[inspect.Pod], 0, len(r.Pods))
		for _, p := range r.Pods {
			candidates = append(candidates, candidate[inspect.Pod]{p, p.ID, p.Namespace + "/" + p.Name, p.NotReady == ""})
		}
		pod, err := selectOne("pod", "pod sandbox", req.GetPod(), candidates)
		if err != nil {
			return nil, err
		}
		r.Pods = []inspect.Pod{pod}
	}
	return networkResponse(r, s.cfg.Containers.List()), nil
}

// networkResponse translates a report, and adds the names of the containers that are created or running.
func networkResponse(r *inspect.Report, containers []*container.Snapshot) *adminv1.InspectNetworkResponse {
	out := &adminv1.InspectNetworkResponse{
		Time: timestamppb.New(r.Time), Host: networkHost(&r.Host), Problems: networkProblems(r.Problems),
		Errors: append(append([]string(nil), r.Errors...), r.Rules.Errors...), HasErrors: r.HasErrors(),
	}
	for _, n := range r.Networks {
		c := cniNetwork(n.Details)
		c.Configured, c.Pods = n.Configured, int32(n.Pods)
		out.Networks = append(out.Networks, c)
	}
	for _, b := range r.Bridges {
		m := &adminv1.NetworkBridge{Link: networkLink(&b.Link), Missing: b.Missing, Stp: b.STP, VlanFiltering: b.VLANs, RouteLocalnet: b.RouteLocalnet}
		for _, p := range b.Ports {
			m.Ports = append(m.Ports, &adminv1.NetworkBridgePort{Name: p.Name, Type: p.Type, PodId: p.Pod})
		}
		out.Bridges = append(out.Bridges, m)
	}
	for i := range r.Pods {
		p := networkPod(&r.Pods[i])
		p.Containers = containerNames(containers, p.Id)
		out.Pods = append(out.Pods, p)
	}
	return out
}

// containerNames returns the names of the containers of a pod that are created or running, the oldest first.
func containerNames(all []*container.Snapshot, pod string) []string {
	list := slices.DeleteFunc(slices.Clone(all), func(c *container.Snapshot) bool {
		return c.PodID != pod || !isAlive(c)
	})
	slices.SortFunc(list, func(a, b *container.Snapshot) int { return a.CreatedAt.Compare(b.CreatedAt) })
	var names []string
	for _, c := range list {
		names = append(names, c.Config.GetMetadata().GetName())
	}
	return names
}

func networkHost(h *inspect.Host) *adminv1.NetworkHost {
	name, err := os.Hostname()
	if err != nil {
		name = "unknown"
	}
	out := &adminv1.NetworkHost{
		Name: name, Ipv4Forwarding: h.Forwarding4, Ipv6Forwarding: h.Forwarding6,
		BridgeNfCallIptables: h.BridgeNF4, BridgeNfCallIp6Tables: h.BridgeNF6,
	}
	for i := range h.Uplinks {
		out.Uplinks = append(out.Uplinks, networkLink(&h.Uplinks[i]))
	}
	return out
}

func networkLink(l *inspect.Link) *adminv1.NetworkLink {
	c := l.Counters
	return &adminv1.NetworkLink{
		Name: l.Name, Index: int32(l.Index), Type: l.Type, Mac: l.MAC, Mtu: int32(l.MTU), Up: l.Up, State: l.State, Carrier: l.Carrier,
		Addresses: texts(l.Addresses),
		Counters: &adminv1.NetworkCounters{
			RxBytes: c.RxBytes, RxPackets: c.RxPackets, RxErrors: c.RxErrors, RxDropped: c.RxDropped,
			TxBytes: c.TxBytes, TxPackets: c.TxPackets, TxErrors: c.TxErrors, TxDropped: c.TxDropped,
		},
	}
}

func cniNetwork(d network.Details) *adminv1.CNINetwork {
	out := &adminv1.CNINetwork{
		Name: d.Name, CniVersion: d.CNIVersion, File: d.File, Configured: d.File != "" || d.IsDefaultBridge,
		IsDefault: d.IsDefault, IsAdditional: d.IsAdditional, IsDefaultBridge: d.IsDefaultBridge,
		Bridge: d.Bridge, Subnets: texts(d.Subnets), MasqueradeBy: string(d.Masquerade.By), HostPortsBy: string(d.HostPorts.By),
	}
	for _, p := range d.Plugins {
		out.Plugins = append(out.Plugins, &adminv1.CNIPlugin{Type: p.Type, Ipam: p.IPAM, Builtin: p.Builtin, Path: p.Path})
	}
	return out
}

// texts returns values as text.
func texts[T fmt.Stringer](values []T) []string {
	var out []string
	for _, v := range values {
		out = append(out, v.String())
	}
	return out
}

// address returns an address, or "" for an invalid one.
func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func networkProblems(problems []inspect.Problem) []*adminv1.NetworkProblem {
	var out []*adminv1.NetworkProblem
	for _, p := range problems {
		out = append(out, &adminv1.NetworkProblem{Severity: string(p.Severity), Code: p.Code, Subject: p.Subject, Message: p.Message, Remedy: p.Remedy})
	}
	return out
}
