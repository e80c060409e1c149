package admin

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/reflect/protoreflect"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/sandbox/network"
	"github.com/criserver/criserver/sandbox/network/inspect"
)

// fakeNetworks returns a report.
type fakeNetworks struct{ report func() *inspect.Report }

func (f fakeNetworks) InspectNetwork(context.Context) *inspect.Report { return f.report() }

// fakeContainerList lists containers.
type fakeContainerList []*container.Snapshot

func (f fakeContainerList) List() []*container.Snapshot { return f }

// fullReport returns a report in which every field has a value.
func fullReport() *inspect.Report {
	addr, prefix := netip.MustParseAddr("10.1.0.2"), netip.MustParsePrefix("10.1.0.2/16")
	link := inspect.Link{
		Name: "eth0", Index: 2, Type: "veth", MAC: "02:00:00:00:00:01", MTU: 1500, Up: true, State: "up", Carrier: true, Addresses: []netip.Prefix{prefix},
		Counters: inspect.Counters{RxBytes: 1, RxPackets: 2, RxErrors: 3, RxDropped: 4, TxBytes: 5, TxPackets: 6, TxErrors: 7, TxDropped: 8},
	}
	d := network.Details{
		Name: "net", CNIVersion: "1.1.0", File: "/etc/net", IsDefault: true, IsAdditional: true, IsDefaultBridge: true, Bridge: "br0", Subnets: []netip.Prefix{prefix},
		Plugins:    []network.PluginDetails{{Type: "bridge", IPAM: "host-local", Builtin: true, Path: "/bin/bridge"}},
		Masquerade: network.NAT{By: network.NATDaemon}, HostPorts: network.NAT{By: network.NATPluginIPTables},
	}
	problem := inspect.Problem{Severity: inspect.Error, Code: "c", Subject: "s", Message: "m", Remedy: "r"}
	return &inspect.Report{
		Time: time.Unix(1, 2), Errors: []string{"e"}, Problems: []inspect.Problem{problem}, Rules: inspect.Rules{Errors: []string{"f"}},
		Host:     inspect.Host{Uplinks: []inspect.Link{link}, Forwarding4: "1", Forwarding6: "0", BridgeNF4: "1", BridgeNF6: "1"},
		Networks: []inspect.Network{{Details: d, Configured: true, Pods: 1}},
		Bridges:  []inspect.Bridge{{Link: link, Missing: true, STP: true, VLANs: true, RouteLocalnet: "1", Ports: []inspect.BridgePort{{Name: "veth1", Type: "veth", Pod: "aa1"}}}},
		Pods: []inspect.Pod{{
			ID: "aa1", Namespace: "ns", Name: "web", NotReady: "stopped", HostNetwork: true, NetNS: inspect.NetNS{Path: "/ns", Inode: 42, Name: "/run/netns/x"}, Error: "e",
			Attachments: []inspect.Attachment{{Interface: "eth0", Network: d, ResultFile: "/result", HasResultFile: true, Want: inspect.Want{Addresses: []netip.Prefix{prefix}}}},
			Interfaces:  []inspect.Interface{{Link: link, Peer: &link, Port: &inspect.Port{Bridge: "br0", State: "forwarding", Hairpin: true, Isolated: true, VLANs: []inspect.VLAN{{ID: 7, PVID: true, Untagged: true}}}}},
			Routes:      []inspect.Route{{Dst: prefix, Gateway: addr, Interface: "eth0", Source: addr, Metric: 9}},
			Masquerade:  []inspect.MasqueradeRule{{Source: prefix, Except: []netip.Prefix{prefix}, Chain: "c", By: inspect.NFTables}},
			HostPorts:   []inspect.HostPortRule{{Protocol: "tcp", Host: addr, HostPort: 8080, Pod: addr, PodPort: 80, Chain: "c", By: inspect.IPTables}},
			DNS:         inspect.DNS{Path: "/r", Servers: []string{"a"}, Searches: []string{"b"}, Options: []string{"c"}, FromHost: true},
			Shaping:     []inspect.Shaping{{Interface: "eth0", Device: "veth1", Ingress: true, Rate: 1000}},
			Problems:    []inspect.Problem{problem},
		}},
	}
}

// checkSet fails the test for each field of a message that has no value. Such a field was forgotten in the translation.
func checkSet(t *testing.T, m protoreflect.Message) {
	t.Helper()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		// A network of an attachment has no number of pods.
		if !m.Has(f) && f.FullName() != "criserver.admin.v1.CNINetwork.pods" {
			t.Errorf("%s has no value", f.FullName())
			continue
		}
		switch {
		case f.Message() == nil || f.Message().FullName() == "google.protobuf.Timestamp":
		case f.IsList():
			for j := range m.Get(f).List().Len() {
				checkSet(t, m.Get(f).List().Get(j).Message())
			}
		default:
			checkSet(t, m.Get(f).Message())
		}
	}
}

func TestInspectNetworkTranslatesEveryField(t *testing.T) {
	s := New(Config{Networks: fakeNetworks{fullReport}, Containers: fakeContainerList{
		{PodID: "aa1", State: container.Running, CreatedAt: time.Unix(9, 0), Config: &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "late"}}},
		{PodID: "aa1", State: container.Created, CreatedAt: time.Unix(8, 0), Config: &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "main"}}},
		{PodID: "aa1", State: container.Exited, Config: &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "init"}}},
		{PodID: "aa2", State: container.Running, Config: &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "other"}}},
	}})
	r, err := s.InspectNetwork(t.Context(), &adminv1.InspectNetworkRequest{Pod: "aa"})
	if err != nil {
		t.Fatal(err)
	}
	checkSet(t, r.ProtoReflect())
	p := r.GetPods()[0]
	if !slices.Equal(p.GetContainers(), []string{"main", "late"}) || p.GetHostPortRules()[0].GetFamily() != "ipv4" || p.GetInterfaces()[0].GetPort().GetVlans()[0] != "7 pvid untagged" || len(r.GetErrors()) != 2 {
		t.Errorf("got %v", r)
	}
}

func TestInspectNetworkSelectsPod(t *testing.T) {
	pods := []inspect.Pod{
		{ID: "aa1", Namespace: "ns", Name: "web", NotReady: "stopped"},
		{ID: "aa2", Namespace: "ns", Name: "web"},
		{ID: "ab1", Namespace: "ns", Name: "db"},
		{ID: "ac1", Namespace: "ns", Name: "old", NotReady: "stopped"},
		{ID: "ac2", Namespace: "ns", Name: "old", NotReady: "stopped"},
	}
	s := New(Config{Networks: fakeNetworks{func() *inspect.Report { return &inspect.Report{Pods: pods} }}, Containers: fakeContainerList{}})
	for query, want := range map[string]string{"aa2": "aa2", "ab": "ab1", "ns/web": "aa2", "ns/db": "ab1"} {
		r, err := s.InspectNetwork(t.Context(), &adminv1.InspectNetworkRequest{Pod: query})
		if err != nil || len(r.GetPods()) != 1 || r.GetPods()[0].GetId() != want {
			t.Errorf("%q: got %v, %v, want %s", query, r.GetPods(), err, want)
		}
	}
	for query, is := range map[string]func(error) bool{"a": errdefs.IsInvalidArgument, "f": errdefs.IsNotFound, "ns/x": errdefs.IsNotFound, "web": errdefs.IsNotFound, "ns/old": errdefs.IsInvalidArgument} {
		if _, err := s.InspectNetwork(t.Context(), &adminv1.InspectNetworkRequest{Pod: query}); !is(err) {
			t.Errorf("%q: got error %v", query, err)
		}
	}
	if r, err := s.InspectNetwork(t.Context(), &adminv1.InspectNetworkRequest{}); err != nil || len(r.GetPods()) != len(pods) {
		t.Errorf("all pods: got %v, %v", r.GetPods(), err)
	}
}
