package system

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criserver/criserver/test/harness"
)

// overlayHost creates a network namespace in the role of a machine, with a daemon whose
// pods are part of an overlay network. k is 1 or 2.
func overlayHost(t *testing.T, netns string, k int) *node {
	t.Helper()
	n := makeNode(fmt.Sprintf("host%d", k))
	n.NetNS = netns
	n.Network = n.conflist(t, "net/overlay.conflist", "10.90.1.", fmt.Sprintf("10.90.%d.", k), "fd00:90::1:", fmt.Sprintf("fd00:90::%d:", k))
	// The registry is on the loopback interface of this namespace.
	if err := harness.In(netns, func() error { _, err := serveImages(suite.images); return err }); err != nil {
		t.Fatal(err)
	}
	return netNode(t, n)
}

// TestOverlayAcrossHosts connects the pods of two machines through VXLAN.
func TestOverlayAcrossHosts(t *testing.T) {
	hosts := []string{"", aHost(t, "host1.ns"), aHost(t, "host2.ns")}
	wire(t, hosts[1], "eth0", hosts[2], "eth0", [2]string{"192.0.2.1/24", "192.0.2.2/24"})
	script := filepath.Join("..", "..", "docs", "examples", "net", "vxlan.sh")
	for k := 1; k <= 2; k++ {
		command(t, hosts[k], "sh", script, "eth0", fmt.Sprintf("192.0.2.%d", k), fmt.Sprintf("192.0.2.%d", 3-k))
	}
	one, two := overlayHost(t, hosts[1], 1), overlayHost(t, hosts[2], 2)
	one.takeBaseline(t) // directories and pods of the other daemon are no leaks
	t.Cleanup(func() {
		if err := errors.Join(one.empty(context.Background()), two.empty(context.Background())); err != nil {
			t.Error(err)
		}
	})
	a, b, c := one.RunPod(t, podConfig("a")), two.RunPod(t, podConfig("b")), one.RunPod(t, podConfig("c"))
	two.web(t, b)
	one.web(t, a)
	ipsA, ipsB, ipsC := one.podIPs(t, a.ID), two.podIPs(t, b.ID), one.podIPs(t, c.ID)
	if !strings.HasPrefix(ipsA[0], "10.90.1.") || !strings.HasPrefix(ipsB[0], "10.90.2.") {
		t.Fatalf("addresses: got %v and %v, want 10.90.1.0/24 and 10.90.2.0/24 of the hosts", ipsA, ipsB)
	}
	sent := vxlanBytes(t, hosts[1])
	for i := range ipsA {
		ping(t, one.netns(a), ipsB[i])
		ping(t, two.netns(b), ipsA[i])
		sees(t, one.netns(a), ipsB[i], 80, ipsA[i])
		sees(t, two.netns(b), ipsA[i], 80, ipsB[i])
		sees(t, one.netns(c), ipsA[i], 80, ipsC[i]) // on one host
		// The transfer has full segments, none of which may exceed the MTU.
		big, err := fetch(one.netns(a), ipsB[i], 80, "/big")
		if err != nil || len(big) != 300000 {
			t.Errorf("transfer: got %d bytes (error %v), want 300000", len(big), err)
		}
	}
	if got := vxlanBytes(t, hosts[1]); got < sent+600000 {
		t.Errorf("received through VXLAN: got %d bytes, want at least 600000", got-sent)
	}
	for _, netns := range []string{one.netns(a), two.netns(b)} {
		if link := command(t, netns, "ip", "-o", "link", "show", "eth0"); !strings.Contains(link, "mtu 1450 ") {
			t.Errorf("interface of a pod: got %s, want MTU 1450", link)
		}
	}
	// A host reaches its own pods as their gateway, and the pods of the other host through
	// the bridge.
	answers(t, hosts[1], ipsB[0], 80)
	answers(t, hosts[2], ipsB[0], 80)

	// The wire is the only connection of the machines.
	command(t, hosts[1], "ip", "link", "set", "eth0", "down")
	silent(t, one.netns(a), ipsB[0], 80)
	sees(t, one.netns(c), ipsA[0], 80, ipsC[0])
	command(t, hosts[1], "ip", "link", "set", "eth0", "up")
	one.Kill()
	one.restart(t)
	sees(t, one.netns(a), ipsB[0], 80, ipsA[0])
}

// vxlanBytes returns the number of bytes that a host received through the overlay.
func vxlanBytes(t *testing.T, netns string) int {
	t.Helper()
	for line := range strings.Lines(command(t, netns, "cat", "/proc/thread-self/net/dev")) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "vxlan90:"); ok {
			var n int
			if _, err := fmt.Sscan(rest, &n); err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("the interface vxlan90 does not exist")
	return 0
}

func TestPolicyBetweenPods(t *testing.T) {
	n := makeNode("policy")
	n.Network = n.conflist(t, "10-criserver.conflist")
	netNode(t, n)
	pa := podConfig("a")
	a, b, c := n.RunPod(t, pa), n.RunPod(t, webOn("b", 8080)), n.RunPod(t, podConfig("c"))
	n.web(t, b)
	ipA, ipB, ipC := n.podIPs(t, a.ID)[0], n.podIPs(t, b.ID)[0], n.podIPs(t, c.ID)[0]
	const host = "10.88.0.1"
	sees(t, n.netns(a), ipB, 80, ipA)

	agent := filepath.Join("..", "..", "docs", "examples", "net", "policy.nft")
	command(t, "", "nft", "-f", agent)
	t.Cleanup(func() {
		for _, family := range []string{"bridge", "inet"} {
			_, _ = try("", "nft", "delete", "table", family, "pod_policy")
		}
	})
	for _, family := range []string{"bridge", "inet"} {
		command(t, "", "nft", "add", "element", family, "pod_policy", "from", "{", ipA, "}")
		command(t, "", "nft", "add", "element", family, "pod_policy", "to", "{", ipB, "}")
	}
	policy := command(t, "", "nft", "list", "table", "bridge", "pod_policy")
	enforced := func() {
		t.Helper()
		silent(t, n.netns(a), ipB, 80)
		silent(t, n.netns(a), host, 8080) // nor through the host
		sees(t, n.netns(c), ipB, 80, ipC)
		answers(t, n.netns(c), host, 8080)
		answers(t, "", ipB, 80)
		answers(t, "", "127.0.0.1", 8080)
	}
	enforced()
	// Changes of the daemon's rules do not affect the rules of the agent.
	n.Kill()
	n.restart(t)
	n.RemovePod(t, n.RunPod(t, webOn("d", 8081)).ID)
	enforced()
	if now := command(t, "", "nft", "list", "table", "bridge", "pod_policy"); now != policy {
		t.Errorf("table of the agent: got\n%s\nwant\n%s", now, policy)
	}
	for _, family := range []string{"bridge", "inet"} {
		command(t, "", "nft", "delete", "table", family, "pod_policy")
	}
	sees(t, n.netns(a), ipB, 80, ipA)
	answers(t, n.netns(a), host, 8080)
}
