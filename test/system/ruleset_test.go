package system

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/criserver/criserver/test/harness"
)

// othersRules are the tables of other programs of a node: nftables tables of a firewall, which filter and translate,
// and chains of iptables-nft.
var othersRules = [][]string{
	{"nft", "add table inet others; add chain inet others forward { type filter hook forward priority -10; policy accept; }; " +
		"add rule inet others forward ip daddr 203.0.113.1 counter drop; add chain inet others post { type nat hook postrouting priority 110; }; " +
		"add rule inet others post ip saddr 198.51.100.0/24 masquerade"},
	{"iptables-nft", "-w", "-N", "OTHERS"},
	{"iptables-nft", "-w", "-A", "OTHERS", "-d", "203.0.113.2", "-j", "DROP"},
	{"iptables-nft", "-w", "-A", "FORWARD", "-j", "OTHERS"},
	{"iptables-nft", "-w", "-t", "nat", "-A", "POSTROUTING", "-s", "198.51.100.0/24", "-j", "MASQUERADE"},
}

// TestRulesOfOtherOwners runs pods beside rules of other owners, and flushes all rules while
// pods run.
func TestRulesOfOtherOwners(t *testing.T) {
	host := aHost(t, "rules")
	outside := aHost(t, "rulesout")
	servePeer(t, outside)
	wire(t, host, "up0", outside, "up1", [2]string{"192.0.2.1/24", "192.0.2.9/24"})
	for _, args := range othersRules {
		command(t, host, args...)
	}
	others := func() string {
		t.Helper()
		var kept []string
		for _, table := range strings.SplitAfter(counted.ReplaceAllString(command(t, host, "nft", "list", "ruleset"), "counter"), "\n}\n") {
			if strings.HasPrefix(table, "table inet others ") || strings.HasPrefix(table, "table ip ") {
				kept = append(kept, table)
			}
		}
		return strings.Join(kept, "")
	}
	before := others()
	if !strings.Contains(before, "OTHERS") || !strings.Contains(before, "203.0.113.1") {
		t.Fatalf("rules of other owners: got\n%s\nwant those that the test has created", before)
	}

	n := makeNode("rules")
	n.NetNS = host
	addr := n.serveIn(t, host)
	n.Registries = strings.ReplaceAll(n.Registries, suite.images, addr)
	n.Network = n.Bridge("csrules", "10.69.0.0/16")
	n.start(t)
	p := n.RunPod(t, webOn("rules", 8090))
	n.web(t, p)
	ip := n.podIPs(t, p.ID)[0]
	works := func() error {
		if _, err := fetch(outside, "192.0.2.1", 8090, "/cgi-bin/peer"); err != nil {
			return fmt.Errorf("fetch a page through the host port: %w", err)
		}
		return n.masquerades(p, "192.0.2.9")
	}
	if err := works(); err != nil {
		t.Errorf("network with rules of other owners: got error %v, want none", err)
	}
	if now := others(); now != before {
		t.Errorf("rules of other owners: got\n%s\nwant\n%s", now, before)
	}

	command(t, host, "nft", "flush", "ruleset")
	const interval = time.Minute // interval in which the daemon checks its rules
	var err error
	for end := time.Now().Add(interval + harness.Patience(30*time.Second)); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		if err = works(); err == nil {
			break
		}
	}
	if err != nil {
		t.Errorf("network after the flush of all rules: got error %v, want none", err)
	}
	if now := others(); strings.Contains(now, "others") || strings.Contains(now, "OTHERS") {
		t.Errorf("rules of other owners after the flush: got\n%s\nwant none", now)
	}
	n.RemovePod(t, p.ID)
	if rules := command(t, host, "nft", "list", "ruleset"); strings.Contains(rules, ip+" ") || strings.Contains(rules, "8090") {
		t.Errorf("rules after the removal of the pod: got\n%s\nwant none with %s or port 8090", rules, ip)
	}
	n.takeBaseline(t) // the rules that the flush removed are no leak
}

// serveIn serves the test images in a network namespace.
func (n *node) serveIn(t *testing.T, netns string) (addr string) {
	t.Helper()
	err := harness.In(netns, func() (err error) {
		addr, err = serveImages("127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// masquerades reports whether another machine sees the pod under the host's address.
func (n *node) masquerades(p *pod, server string) error {
	peer, err := fetchWithin(harness.Patience(2*time.Second), n.netns(p), server, peerPort, "/")
	if err != nil {
		return fmt.Errorf("fetch a page of another machine: %w", err)
	}
	if peer != "192.0.2.1" {
		return fmt.Errorf("client address at another machine: got %s, want 192.0.2.1", peer)
	}
	return nil
}

const peerPort = 9000

// servePeer serves the address of the client in a network namespace.
func servePeer(t *testing.T, netns string) {
	t.Helper()
	var l net.Listener
	err := harness.In(netns, func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf(":%d", peerPort))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprint(w, host)
	})}
	go server.Serve(l) // the server ends when it is closed
	t.Cleanup(func() { _ = server.Close() })
}
