// Package nettest has the networks of made-up nodes for tests of packages that show networks.
package nettest

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/criserver/criserver/admin/v1"
)

// Node returns a node with a bridge and a number of pods without problems.
func Node(pods int) *adminv1.InspectNetworkResponse {
	r := &adminv1.InspectNetworkResponse{
		Time: timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)),
		Host: &adminv1.NetworkHost{
			Name: "node1", Ipv4Forwarding: "1", Ipv6Forwarding: "1",
			Uplinks: []*adminv1.NetworkLink{link("ens3", "ether", 2, 1500, "192.0.2.10/24", "2001:db8::10/64", "fe80::1/64")},
		},
		Networks: []*adminv1.CNINetwork{network(int32(pods))},
		Bridges:  []*adminv1.NetworkBridge{{Link: link("cri0", "bridge", 3, 1500, "10.88.0.1/16", "fd00:88::1/64"), RouteLocalnet: "1"}},
	}
	for i := range pods {
		p := pod(i)
		r.Pods = append(r.Pods, p)
		r.Bridges[0].Ports = append(r.Bridges[0].Ports, &adminv1.NetworkBridgePort{Name: p.Interfaces[1].Host.Name, Type: "veth", PodId: p.Id})
	}
	return r
}

func network(pods int32) *adminv1.CNINetwork {
	return &adminv1.CNINetwork{
		Name: "criserver", CniVersion: "1.1.0", File: "/etc/cni/net.d/10-criserver.conflist", Configured: true, IsDefault: true,
		Plugins: []*adminv1.CNIPlugin{{Type: "bridge", Ipam: "host-local", Builtin: true}, {Type: "portmap", Builtin: true}},
		Bridge:  "cri0", Subnets: []string{"10.88.0.0/16", "fd00:88::/64"}, MasqueradeBy: "criserver", HostPortsBy: "criserver", Pods: pods,
	}
}

func link(name, kind string, index, mtu int32, addresses ...string) *adminv1.NetworkLink {
	return &adminv1.NetworkLink{
		Name: name, Index: index, Type: kind, Mac: fmt.Sprintf("02:00:00:00:00:%02x", index), Mtu: mtu, Up: true, State: "up", Carrier: true, Addresses: addresses,
		Counters: &adminv1.NetworkCounters{RxBytes: 123456, RxPackets: 1234, TxBytes: 7890, TxPackets: 78},
	}
}

// names are the names of the first pods.
var names = []string{"web-7d4b9c6f5-x2xkq", "db-0", "coredns-5d78c9869d-l8g5k", "a-pod-with-a-very-long-name-that-does-not-fit-into-its-box-5f7d8"}

func pod(i int) *adminv1.NetworkPod {
	n := int32(i)
	v4, v6 := fmt.Sprintf("10.88.0.%d", i+2), fmt.Sprintf("fd00:88::%x", i+2)
	name := fmt.Sprintf("worker-%d", i)
	if i < len(names) {
		name = names[i]
	}
	veth := fmt.Sprintf("veth%08x", 0x1a0e076a+uint32(i)*0x01010101)
	lo := link("lo", "loopback", 1, 65536, "127.0.0.1/8", "::1/128")
	lo.Mac, lo.State = "", "unknown"
	p := &adminv1.NetworkPod{
		Id: fmt.Sprintf("%08x", 0x9f3a51c7+uint32(i)*0x01070503) + strings.Repeat("5ab0", 14), Namespace: "default", Name: name,
		NetnsPath: fmt.Sprintf("/run/criserver/ns/%d/net", i), NetnsName: fmt.Sprintf("/run/netns/criserver-%d", i), NetnsInode: uint64(4026532207 + i),
		Containers: []string{"main"},
		Interfaces: []*adminv1.NetworkInterface{
			{Link: lo},
			{
				Link: link("eth0", "veth", 2, 1500, v4+"/16", v6+"/64", "fe80::2/64"),
				Host: link(veth, "veth", 10+n, 1500, "fe80::3/64"),
				Port: &adminv1.NetworkPort{Bridge: "cri0", State: "forwarding", Hairpin: true},
			},
		},
		Routes: []*adminv1.NetworkRoute{
			{Destination: "0.0.0.0/0", Gateway: "10.88.0.1", Interface: "eth0"},
			{Destination: "10.88.0.0/16", Interface: "eth0", Source: v4},
			{Destination: "::/0", Gateway: "fd00:88::1", Interface: "eth0", Metric: 1024},
		},
		Attachments: []*adminv1.NetworkAttachment{{
			Interface: "eth0", Network: network(1), ResultFile: fmt.Sprintf("/run/criserver/cni/results/criserver-%d-eth0", i), ResultFileExists: true, Addresses: []string{v4 + "/16", v6 + "/64"},
		}},
		MasqueradeRules: []*adminv1.MasqueradeRule{
			{Source: "10.88.0.0/16", Except: []string{"10.88.0.0/16", "224.0.0.0/4"}, Program: "nftables", Chain: "inet criserver_masquerade_criserver postrouting"},
			{Source: "fd00:88::/64", Except: []string{"fd00:88::/64", "ff00::/8"}, Program: "nftables", Chain: "inet criserver_masquerade_criserver postrouting"},
		},
		Dns: &adminv1.NetworkDNS{Path: fmt.Sprintf("/run/criserver/pods/%d/resolv.conf", i), Servers: []string{"10.96.0.10"}, Searches: []string{"default.svc.cluster.local", "svc.cluster.local"}, Options: []string{"ndots:5"}},
	}
	switch i % 7 {
	case 0:
		p.HostPortRules = append(p.HostPortRules, hostPort("tcp", "", uint32(8080+i), v4, 80), hostPort("tcp", "", uint32(8080+i), v6, 80))
		p.Containers = []string{"nginx", "log-collector"}
	case 2:
		p.Namespace = "kube-system"
		p.HostPortRules = append(p.HostPortRules, hostPort("udp", "127.0.0.1", 53, v4, 53), hostPort("tcp", "127.0.0.1", 53, v4, 53), hostPort("tcp", "", 9153, v4, 9153))
		p.Shaping = []*adminv1.NetworkShaping{{Interface: "eth0", Direction: "to pod", Rate: 8_000_000, Device: veth}}
	}
	return p
}

func hostPort(protocol, host string, from uint32, pod string, to uint32) *adminv1.HostPortRule {
	family, table := "ipv4", "all_ip"
	if len(pod) > 4 && pod[:2] == "fd" {
		family, table = "ipv6", "all_ip6"
	}
	return &adminv1.HostPortRule{
		Family: family, Protocol: protocol, HostAddress: host, HostPort: from, PodAddress: pod, PodPort: to,
		Program: "nftables", Chain: "inet criserver_hostports_criserver " + table,
	}
}

// Broken returns a node with pods of every kind and with problems.
func Broken() *adminv1.InspectNetworkResponse {
	r := Node(3)
	problem := func(severity, code, subject, message, remedy string) *adminv1.NetworkProblem {
		return &adminv1.NetworkProblem{Severity: severity, Code: code, Subject: subject, Message: message, Remedy: remedy}
	}
	r.HasErrors = true
	r.Host.Ipv4Forwarding = "0"
	r.Problems = []*adminv1.NetworkProblem{
		problem("error", "forwarding-off", "net.ipv4.ip_forward", "the host does not forward packets between the pods and other machines: net.ipv4.ip_forward is 0", "Run `sysctl -w net.ipv4.ip_forward=1`, and set it in /etc/sysctl.d so that it stays."),
		problem("warning", "forward-policy", "chain ip filter FORWARD", "the chain drops forwarded packets that no rule accepts, and no rule names the bridge of the pods", "Add the plugin firewall to the CNI configuration, or a rule that accepts the packets from and to the bridge."),
	}
	web, db, dns := r.Pods[0], r.Pods[1], r.Pods[2]
	host := web.Interfaces[1].Host
	host.Up, host.State, host.Carrier = false, "down", false
	eth0 := web.Interfaces[1].Link
	eth0.State, eth0.Carrier, eth0.Counters = "lower-layer-down", false, &adminv1.NetworkCounters{RxBytes: 5_123_456_789, RxDropped: 17, TxErrors: 3}
	web.Interfaces[1].Port.State = "disabled"
	web.Problems = []*adminv1.NetworkProblem{problem("error", "interface-down", host.Name, "the interface of the host is down, so eth0 has no carrier", "Run `ip link set "+host.Name+" up`.")}
	db.Interfaces[1].Link.Addresses = db.Interfaces[1].Link.Addresses[1:]
	db.Problems = []*adminv1.NetworkProblem{problem("error", "address-missing", "eth0", "the interface does not have the address 10.88.0.3/16, which CNI has set", "Run `nsenter --net="+db.NetnsPath+" ip addr add 10.88.0.3/16 dev eth0`.")}
	dns.Problems = []*adminv1.NetworkProblem{problem("warning", "dns-host-changed", dns.Dns.Path, "the pod has a copy of the host's /etc/resolv.conf, which has changed since the pod was created", "Delete the pod, so that it is created again.")}
	dns.Interfaces = append(dns.Interfaces, &adminv1.NetworkInterface{Link: link("net1", "macvlan", 3, 1500, "192.168.77.128/24"), Host: link("lan0", "ether", 5, 1500)})
	unread := &adminv1.NetworkPod{Id: "f00d" + web.Id[4:], Namespace: "default", Name: "unread", NetnsPath: "/run/criserver/ns/x/net", Error: "read namespace /run/criserver/ns/x/net: enter namespace: invalid argument", Attachments: db.Attachments}
	local := &adminv1.NetworkPod{Id: "cafe" + web.Id[4:], Namespace: "kube-system", Name: "kube-proxy-vx8rq", HostNetwork: true, Containers: []string{"kube-proxy"}, Dns: dns.Dns}
	stopped := &adminv1.NetworkPod{Id: "beef" + web.Id[4:], Namespace: "default", Name: "job-1-abcde", NotReadyReason: "it was stopped", NetnsPath: "/run/criserver/ns/y/net", Attachments: db.Attachments}
	second := &adminv1.NetworkBridge{Link: link("storage0", "bridge", 40, 9000), Stp: true}
	lonely := pod(3)
	lonely.Interfaces[1].Port.Bridge = "storage0"
	lonely.Interfaces[1].Link.Mtu, lonely.Interfaces[1].Host.Mtu = 9000, 9000
	lonely.MasqueradeRules = nil
	r.Networks = append(r.Networks, &adminv1.CNINetwork{
		Name: "storage", CniVersion: "1.0.0", Bridge: "storage0", IsAdditional: true, Configured: true, File: "/etc/cni/net.d/20-storage.conflist", Pods: 1,
		Plugins: []*adminv1.CNIPlugin{{Type: "bridge", Ipam: "static", Path: "/opt/cni/bin/bridge"}, {Type: "tuning"}},
	})
	second.Ports = []*adminv1.NetworkBridgePort{{Name: lonely.Interfaces[1].Host.Name, Type: "veth", PodId: lonely.Id}, {Name: "vxlan0", Type: "vxlan"}}
	routed := pod(4)
	routed.Name, routed.Interfaces[1].Port, routed.Attachments[0].Network.Bridge = "point-to-point", nil, ""
	r.Pods = append(r.Pods, unread, lonely, routed, local, stopped)
	r.Bridges = append(r.Bridges, second)
	return r
}
