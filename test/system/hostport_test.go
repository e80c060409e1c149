package system

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// webOn returns a pod whose port 80 is mapped to a TCP port of the host.
func webOn(name string, port int32) *cri.PodSandboxConfig {
	c := podConfig(name)
	c.PortMappings = []*cri.PortMapping{{HostPort: port, ContainerPort: 80}}
	return c
}

func TestHostPorts(t *testing.T) {
	for _, builtin := range []bool{true, false} {
		t.Run(fmt.Sprintf("builtin=%t", builtin), func(t *testing.T) { testHostPorts(t, builtin) })
	}
}

// filterBridges makes the kernel apply the rules of IP tables to packets between the ports of a
// bridge. The plugin portmap needs that for a connection from one pod to a host port of another,
// because the answers go directly from port to port.
func filterBridges(t *testing.T) {
	t.Helper()
	if exists("/proc/sys/net/bridge/bridge-nf-call-iptables") {
		return
	}
	command(t, "", "modprobe", "br_netfilter")
	t.Cleanup(func() {
		if out, err := exec.Command("modprobe", "-r", "br_netfilter").CombinedOutput(); err != nil {
			t.Errorf("unload br_netfilter: %v: %s", err, out)
		}
	})
}

func testHostPorts(t *testing.T, builtin bool) {
	if !builtin {
		filterBridges(t)
	}
	outside := aHost(t, "outside")
	wire(t, "", "up0", outside, "up1", [2]string{"192.0.2.1/24", "192.0.2.9/24"}, [2]string{"2001:db8::1/64", "2001:db8::9/64"})
	command(t, "", "ip", "addr", "add", "192.0.2.2/24", "dev", "up0")
	command(t, "", "ip", "addr", "add", "2001:db8::2/64", "dev", "up0", "nodad")
	n := makeNode(fmt.Sprintf("ports%t", builtin))
	n.Network, n.CNI = n.conflist(t, "10-criserver.conflist"), fmt.Sprintf("builtin = %t", builtin)
	netNode(t, n)

	c := podConfig("web")
	const tcp, udp, sctp = cri.Protocol_TCP, cri.Protocol_UDP, cri.Protocol_SCTP
	c.PortMappings = []*cri.PortMapping{
		{Protocol: tcp, HostPort: 8080, ContainerPort: 80},
		{Protocol: tcp, HostPort: 8081, ContainerPort: 80, HostIp: "192.0.2.1"},
		{Protocol: tcp, HostPort: 8082, ContainerPort: 80, HostIp: "2001:db8::1"},
		{Protocol: tcp, HostPort: 8083, ContainerPort: 80, HostIp: "127.0.0.1"},
		{Protocol: tcp, HostPort: 8084, ContainerPort: 80, HostIp: "0.0.0.0"},
		{Protocol: tcp, HostPort: 8085, ContainerPort: 80, HostIp: "::"},
		{Protocol: sctp, HostPort: 8080, ContainerPort: 132},
		{Protocol: tcp, HostPort: 0, ContainerPort: 8086},
	}
	co := podConfig("other")
	co.PortMappings = []*cri.PortMapping{{Protocol: udp, HostPort: 8080, ContainerPort: 53}}
	p, other := n.RunPod(t, c), n.RunPod(t, co)
	n.web(t, p)
	echo(t, n.netns(other), ":53")
	ips := n.podIPs(t, p.ID)

	// The server sees the address of a client outside of the node.
	sees(t, outside, "192.0.2.1", 8080, "192.0.2.9")
	sees(t, outside, "192.0.2.2", 8080, "192.0.2.9")
	sees(t, outside, "2001:db8::1", 8080, "2001:db8::9")
	sees(t, outside, "192.0.2.1", 8081, "192.0.2.9")
	sees(t, outside, "2001:db8::1", 8082, "2001:db8::9")
	sees(t, outside, "192.0.2.2", 8084, "192.0.2.9")
	sees(t, outside, "2001:db8::2", 8085, "2001:db8::9")
	answers(t, "", "127.0.0.1", 8080)
	answers(t, "", "127.0.0.1", 8083)
	answers(t, "", "192.0.2.1", 8081)
	// Pods reach the host port, including the pod itself.
	for _, from := range []*pod{p, other} {
		answers(t, n.netns(from), "192.0.2.1", 8080)
		answers(t, n.netns(from), "10.88.0.1", 8080)
		answers(t, n.netns(from), "2001:db8::1", 8080)
	}
	for _, addr := range []string{"192.0.2.1:8080", "[2001:db8::1]:8080"} {
		if err := datagram(outside, addr); err != nil {
			t.Errorf("UDP: got error %v, want none", err)
		}
	}
	if err := datagram("", "127.0.0.1:8080"); err != nil {
		t.Errorf("UDP on loopback: got error %v, want none", err)
	}
	// The kernel may have no SCTP sockets, so the test checks only the rule.
	if rules := n.ruleset(t); !strings.Contains(rules, "sctp") {
		t.Errorf("rules: got\n%s\nwant one for SCTP", rules)
	}
	// A mapping for one host address does not apply to others, and a mapping for one
	// address family does not apply to the other.
	for _, closed := range []struct {
		ip   string
		port int
	}{
		{"192.0.2.2", 8081}, {"2001:db8::2", 8082}, {"192.0.2.1", 8083}, {"2001:db8::1", 8084}, {"192.0.2.1", 8085}, {"192.0.2.1", 8086}, {"192.0.2.1", 80},
	} {
		silent(t, outside, closed.ip, closed.port)
	}

	// A pod cannot reach services on the host's loopback interface.
	port := page(t, "", "127.0.0.1:0")
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/route_localnet", []byte("0"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet"},
		{"ip", "addr", "del", "127.0.0.1/8", "dev", "lo"},
		{"ip", "route", "del", "table", "local", "127.0.0.0/8", "dev", "lo"},
		{"ip", "route", "add", "127.0.0.1", "via", "10.88.0.1", "dev", "eth0"},
	} {
		if out, err := try(n.netns(other), args...); err != nil && args[2] != "del" {
			t.Fatalf("run %q in the pod: %v: %s", args, err, out)
		}
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	if builtin { // the plugin does not prevent this
		silent(t, n.netns(other), "127.0.0.1", number)
		silent(t, "", "::1", 8080)
	}

	n.Kill()
	n.restart(t)
	sees(t, outside, "192.0.2.1", 8080, "192.0.2.9")
	_, err = n.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: webOn("late", 8081)})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), p.ID) {
		t.Errorf("host port of another pod: got error %v, want FailedPrecondition with the pod", err)
	}
	n.RemovePod(t, p.ID)
	for _, ip := range append(ips, "192.0.2.1", "192.0.2.2") {
		silent(t, outside, ip, 8080)
	}
	late := n.RunPod(t, webOn("late", 8081))
	n.web(t, late)
	sees(t, outside, "192.0.2.2", 8081, "192.0.2.9")
}
