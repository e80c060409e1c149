package inspect

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/criserver/criserver/sandbox/network"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

// healthy returns a node with two pods on one bridge and without problems.
func healthy() *Report {
	d := network.Details{
		Name: "net", Bridge: "br0", Gateway: true, Subnets: []netip.Prefix{prefix("10.1.0.0/16")}, Localhost: true, Bandwidth: true,
		Masquerade: network.NAT{By: network.NATDaemon, Table: "masq"}, HostPorts: network.NAT{By: network.NATDaemon, Table: "ports"},
	}
	r := &Report{
		Host:     Host{Forwarding4: "1", Forwarding6: "1"},
		Networks: []Network{{Details: d, Configured: true, Pods: 2}},
		Bridges: []Bridge{{
			Link:          Link{Name: "br0", Up: true, MTU: 1500, Addresses: []netip.Prefix{prefix("10.1.0.1/16")}},
			RouteLocalnet: "1", WantAddresses: []netip.Prefix{prefix("10.1.0.1/16")},
			Ports: []BridgePort{{"veth1", "veth", "pod1"}, {"veth2", "veth", "pod2"}, {"vxlan0", "vxlan", ""}},
		}},
		Rules: Rules{
			NFTables: true, Masquerade: []MasqueradeRule{{Source: prefix("10.1.0.0/16")}},
			HostPorts: []HostPortRule{{Protocol: "tcp", HostPort: 8080, Pod: addr("10.1.0.2"), PodPort: 80, PodID: "pod1"}},
		},
	}
	for i, a := range []string{"10.1.0.2/16", "10.1.0.3/16"} {
		n := string(rune('1' + i))
		p := Pod{
			ID: "pod" + n, Namespace: "ns", Name: "p" + n, NetNS: NetNS{Path: "/ns/pod" + n, Inode: 42},
			Attachments: []Attachment{{Interface: "eth0", Network: d, Want: Want{
				MAC: "02:00:00:00:00:0" + n, Addresses: []netip.Prefix{prefix(a)}, Gateways: []netip.Prefix{prefix("10.1.0.1/16")}, Routes: []Route{{Dst: prefix("0.0.0.0/0")}},
			}}},
			Interfaces: []Interface{
				{Link: Link{Name: "lo", Type: "loopback", Up: true, Carrier: true, Addresses: []netip.Prefix{prefix("127.0.0.1/8")}}},
				{
					Link:    Link{Name: "eth0", Type: "veth", MAC: "02:00:00:00:00:0" + n, Up: true, Carrier: true, MTU: 1500, Addresses: []netip.Prefix{prefix(a), prefix("fe80::1/64")}},
					HasPeer: true, Peer: &Link{Name: "veth" + n, Up: true, State: "up", Carrier: true, MTU: 1500}, Port: &Port{Bridge: "br0", State: "forwarding"},
				},
			},
			Routes: []Route{{Dst: prefix("0.0.0.0/0"), Gateway: addr("10.1.0.1"), Interface: "eth0"}},
			DNS:    DNS{Path: "/resolv" + n, Servers: []string{"10.96.0.10"}},
		}
		r.Pods = append(r.Pods, p)
	}
	r.Pods[0].WantHostPorts = []network.PortMapping{{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"}}
	return r
}

// found returns all problems of a report as "severity code subject".
func found(r *Report) []string {
	var out []string
	add := func(pod string, problems []Problem) {
		for _, p := range problems {
			out = append(out, strings.TrimSpace(pod+" "+string(p.Severity)+" "+p.Code+" "+p.Subject))
		}
	}
	add("", r.Problems)
	for _, p := range r.Pods {
		add(p.ID, p.Problems)
	}
	return out
}

func TestDiagnose(t *testing.T) {
	eth0 := func(r *Report) *Interface { return &r.Pods[0].Interfaces[1] }
	attached := func(r *Report) *Attachment { return &r.Pods[0].Attachments[0] }
	for name, tt := range map[string]struct {
		change func(r *Report)
		want   []string
	}{
		"healthy":                                {func(*Report) {}, nil},
		"network not ready":                      {func(r *Report) { r.NetworkError = "no file" }, []string{"error network-not-ready CNI"}},
		"forwarding":                             {func(r *Report) { r.Host.Forwarding4 = "0" }, []string{"error forwarding-off net.ipv4.ip_forward"}},
		"forwarding of a family that no pod has": {func(r *Report) { r.Host.Forwarding6 = "0" }, nil},
		"forwarding for a network without a gateway": {func(r *Report) {
			r.Host.Forwarding4 = "0"
			for i := range r.Pods {
				n := &r.Pods[i].Attachments[0].Network
				n.Gateway, n.Masquerade = false, network.NAT{}
			}
		}, nil},
		"bridge missing":                     {func(r *Report) { r.Bridges[0].Missing = true }, []string{"error bridge-missing bridge br0"}},
		"missing bridge without pods":        {func(r *Report) { r.Bridges[0].Missing, r.Networks[0].Pods = true, 0 }, nil},
		"bridge down":                        {func(r *Report) { r.Bridges[0].Up = false }, []string{"error bridge-down bridge br0"}},
		"bridge without gateway":             {func(r *Report) { r.Bridges[0].Addresses = nil }, []string{"error gateway-missing bridge br0"}},
		"route_localnet":                     {func(r *Report) { r.Bridges[0].RouteLocalnet = "0" }, []string{"error localhost-ports bridge br0"}},
		"route_localnet without snat":        {func(r *Report) { r.Bridges[0].RouteLocalnet, attached(r).Network.Localhost = "0", false }, nil},
		"port without a pod":                 {func(r *Report) { r.Bridges[0].Ports[1].Pod = "" }, []string{"warning unknown-port bridge br0"}},
		"port of a pod that was not read":    {func(r *Report) { r.Bridges[0].Ports[1].Pod, r.Pods[1].Error = "", "no" }, nil},
		"forward policy":                     {func(r *Report) { r.Rules.ForwardDrop = []string{"ip filter FORWARD"} }, []string{"warning forward-policy chain ip filter FORWARD"}},
		"kube-proxy, no br_netfilter":        {func(r *Report) { r.Rules.KubeProxy = true }, []string{"warning br-netfilter-off net.bridge.bridge-nf-call-iptables"}},
		"kube-proxy and br_netfilter":        {func(r *Report) { r.Rules.KubeProxy, r.Host.BridgeNF4 = true, "1" }, nil},
		"namespace missing":                  {func(r *Report) { r.Pods[0].NetNS.Inode, r.Pods[0].Interfaces = 0, nil }, []string{"pod1 error namespace-missing /ns/pod1"}},
		"name of the namespace":              {func(r *Report) { r.Pods[0].NetNS.Name, r.Pods[0].NetNS.NameWrong = "/run/netns/x", true }, []string{"pod1 warning namespace-name /run/netns/x"}},
		"namespace not read":                 {func(r *Report) { r.Pods[0].Error, r.Pods[0].Interfaces = "no", nil }, nil},
		"not ready":                          {func(r *Report) { r.Pods[0].NotReady, r.Pods[0].Interfaces = "stopped", nil }, nil},
		"interface missing":                  {func(r *Report) { r.Pods[0].Interfaces = r.Pods[0].Interfaces[:1] }, []string{"pod1 error interface-missing eth0"}},
		"loopback down":                      {func(r *Report) { r.Pods[0].Interfaces[0].Up = false }, []string{"pod1 error interface-down lo"}},
		"interface down":                     {func(r *Report) { eth0(r).Up = false }, []string{"pod1 error interface-down eth0"}},
		"no carrier":                         {func(r *Report) { eth0(r).Carrier = false }, []string{"pod1 error no-carrier eth0"}},
		"no carrier because of the peer":     {func(r *Report) { eth0(r).Carrier, eth0(r).Peer.Up = false, false }, []string{"pod1 error interface-down veth1"}},
		"peer missing":                       {func(r *Report) { eth0(r).Peer, eth0(r).Port = nil, nil }, []string{"pod1 error peer-missing eth0"}},
		"no port":                            {func(r *Report) { eth0(r).Port = nil }, []string{"pod1 error not-a-port veth1"}},
		"port of another bridge":             {func(r *Report) { eth0(r).Port.Bridge = "br1" }, []string{"pod1 error not-a-port veth1"}},
		"port blocked":                       {func(r *Report) { eth0(r).Port.State = "blocking" }, []string{"pod1 error port-state veth1"}},
		"port of a link that is coming up":   {func(r *Report) { eth0(r).Port.State, eth0(r).Peer.State = "disabled", "lower-layer-down" }, nil},
		"MTU of the pod":                     {func(r *Report) { eth0(r).MTU = 1400 }, []string{"pod1 error mtu veth1"}},
		"MTU of both ends":                   {func(r *Report) { eth0(r).MTU, eth0(r).Peer.MTU = 1400, 1400 }, []string{"pod1 error mtu br0"}},
		"MTU of the bridge":                  {func(r *Report) { r.Bridges[0].MTU = 1400 }, []string{"pod1 error mtu br0", "pod2 error mtu br0"}},
		"MTU of the configuration":           {func(r *Report) { attached(r).Network.MTU = 1400 }, []string{"pod1 error mtu eth0"}},
		"MAC":                                {func(r *Report) { eth0(r).MAC = "02:00:00:00:00:ff" }, []string{"pod1 warning mac-changed eth0"}},
		"address missing":                    {func(r *Report) { eth0(r).Addresses = nil }, []string{"pod1 error address-missing eth0"}},
		"address with another prefix":        {func(r *Report) { eth0(r).Addresses[0] = prefix("10.1.0.2/24") }, []string{"pod1 error address-missing eth0"}},
		"addresses inside a guest":           {func(r *Report) { eth0(r).Addresses, r.Pods[0].Routes, r.Pods[0].Guest = nil, nil, true }, nil},
		"no default route":                   {func(r *Report) { r.Pods[0].Routes = nil }, []string{"pod1 error route-missing eth0"}},
		"default route of another interface": {func(r *Report) { r.Pods[0].Routes[0].Interface = "net1" }, []string{"pod1 error route-missing eth0"}},
		"no default route wanted":            {func(r *Report) { r.Pods[0].Routes, attached(r).Want.Routes = nil, nil }, nil},
		"address in use": {
			func(r *Report) { eth0(r).Addresses = append(eth0(r).Addresses, prefix("10.1.0.3/16")) },
			[]string{"pod1 error address-in-use 10.1.0.3", "pod2 error address-in-use 10.1.0.3"},
		},
		"same address on another bridge": {func(r *Report) {
			eth0(r).Addresses = append(eth0(r).Addresses, prefix("10.1.0.3/16"))
			attached(r).Network.Bridge, eth0(r).Port.Bridge = "br1", "br1"
		}, nil},
		"lease missing":               {func(r *Report) { attached(r).MissingLeases = []netip.Addr{addr("10.1.0.2")} }, []string{"pod1 error lease-missing 10.1.0.2"}},
		"masquerading":                {func(r *Report) { r.Rules.Masquerade = nil }, []string{"pod1 error masquerade-missing 10.1.0.2", "pod2 error masquerade-missing 10.1.0.3"}},
		"masquerading of one address": {func(r *Report) { r.Rules.Masquerade[0].Source = prefix("10.1.0.2/32") }, []string{"pod2 error masquerade-missing 10.1.0.3"}},
		"rules not read":              {func(r *Report) { r.Rules = Rules{} }, nil},
		"host port":                   {func(r *Report) { r.Rules.HostPorts = nil }, []string{"pod1 error host-port-missing host port 8080/tcp"}},
		"host port of another pod":    {func(r *Report) { r.Rules.HostPorts[0].Pod = addr("10.1.0.3") }, []string{"pod1 error host-port-wrong host port 8080/tcp"}},
		"host port on one address":    {func(r *Report) { r.Rules.HostPorts[0].Host = addr("127.0.0.1") }, []string{"pod1 error host-port-missing host port 8080/tcp"}},
		"host ports without a plugin": {func(r *Report) { attached(r).Network.HostPorts = network.NAT{} }, []string{"pod1 warning host-ports-unsupported net"}},
		"host port of iptables, which was not read": {func(r *Report) {
			r.Rules.HostPorts, attached(r).Network.HostPorts = nil, network.NAT{By: network.NATPluginIPTables}
		}, nil},
		"shaping": {func(r *Report) { r.Pods[0].WantShaping = &network.Bandwidth{EgressRate: 1000} }, []string{"pod1 error shaping-missing eth0"}},
		"shaping without a plugin": {func(r *Report) {
			r.Pods[0].WantShaping, attached(r).Network.Bandwidth = &network.Bandwidth{EgressRate: 1000}, false
		}, nil},
		"record":                  {func(r *Report) { attached(r).Error = "no" }, []string{"pod1 error record-unreadable record"}},
		"resolv.conf missing":     {func(r *Report) { r.Pods[0].DNS.Missing = true }, []string{"pod1 error dns-missing /resolv1"}},
		"resolv.conf differs":     {func(r *Report) { r.Pods[0].DNS.Differs = true }, []string{"pod1 error dns-differs /resolv1"}},
		"resolv.conf of the host": {func(r *Report) { r.Pods[0].DNS.Differs, r.Pods[0].DNS.FromHost = true, true }, []string{"pod1 warning dns-host-changed /resolv1"}},
		"resolv.conf unreadable":  {func(r *Report) { r.Pods[0].DNS.Error = "no" }, []string{"pod1 error dns-unreadable /resolv1"}},
		"server on loopback": {
			func(r *Report) {
				r.Pods[0].DNS = DNS{Path: "/resolv1", FromHost: true, Servers: []string{"127.0.0.53"}}
			},
			[]string{"pod1 warning dns-loopback /resolv1"},
		},
		"no server": {func(r *Report) { r.Pods[0].DNS = DNS{Path: "/resolv1", FromHost: true} }, []string{"pod1 warning dns-empty /resolv1"}},
		"network of the host": {func(r *Report) {
			r.Pods[0] = Pod{ID: "pod1", HostNetwork: true, DNS: DNS{Path: "/resolv1", FromHost: true, Servers: []string{"127.0.0.53"}}}
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := healthy()
			tt.change(r)
			Diagnose(r)
			got := found(r)
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			hasError := slices.ContainsFunc(tt.want, func(s string) bool { return strings.Contains(" "+s, " error ") })
			if r.HasErrors() != (hasError || r.Pods[0].Error+r.Pods[1].Error != "") {
				t.Errorf("HasErrors: got %t", r.HasErrors())
			}
			for _, p := range append(slices.Clone(r.Problems), r.Pods[0].Problems...) {
				if p.Message == "" || strings.HasSuffix(p.Message, ".") || !strings.HasSuffix(p.Remedy, ".") {
					t.Errorf("problem %s: message %q, remedy %q; want a message without and a remedy with a period", p.Code, p.Message, p.Remedy)
				}
			}
		})
	}
}
