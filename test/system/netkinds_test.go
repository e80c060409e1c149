package system

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criserver/criserver/test/harness"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// kinds are networks with the same properties: one address of each family per pod, all
// pods reach each other, host ports.
func kinds(t *testing.T) map[string]*node {
	t.Helper()
	bridge, plugin, ptp := makeNode("kbridge"), makeNode("kplugin"), makeNode("kptp")
	bridge.Network = bridge.conflist(t, "10-criserver.conflist")
	plugin.Network, plugin.CNI = plugin.conflist(t, "10-criserver.conflist", "cri0", "cri2", "10.88.", "10.87.", "fd00:88:", "fd00:87:"), "builtin = false"
	ptp.Network = ptp.conflist(t, "net/ptp.conflist")
	return map[string]*node{"bridge": bridge, "bridge by plugin": plugin, "ptp": ptp}
}

func TestKindsOfNetworks(t *testing.T) {
	for name, n := range kinds(t) {
		t.Run(name, func(t *testing.T) {
			outside := aHost(t, "outside")
			wire(t, "", "up0", outside, "up1", [2]string{"192.0.2.1/24", "192.0.2.2/24"}, [2]string{"2001:db8::1/64", "2001:db8::2/64"})
			netNode(t, n)
			a, b := n.RunPod(t, podConfig("a")), n.RunPod(t, podConfig("b"))
			n.web(t, a)
			n.web(t, b)
			l := listen(t, outside, "[::]:80")
			ipsA, ipsB := n.podIPs(t, a.ID), n.podIPs(t, b.ID)
			if len(ipsA) != 2 || strings.Contains(ipsA[0], ":") || !strings.Contains(ipsA[1], ":") {
				t.Fatalf("addresses: got %v, want one of each family, IPv4 first", ipsA)
			}
			for i, up := range []struct{ host, outside string }{{"192.0.2.1", "192.0.2.2"}, {"2001:db8::1", "2001:db8::2"}} {
				ping(t, n.netns(a), ipsB[i])
				sees(t, n.netns(a), ipsB[i], 80, ipsA[i]) // no translation between pods
				answers(t, "", ipsB[i], 80)               // from the host
				// Outside of the node, all pods have the address of the host.
				if got, err := fetch(n.netns(a), up.outside, 80, "/"); err != nil || got != up.host {
					t.Errorf("client address at %s: got %q (error %v), want %s", up.outside, got, err, up.host)
				}
			}
			if n := l.count(); n != 2 {
				t.Errorf("requests outside of the node: got %d, want 2", n)
			}
			hosts := n.Exec(t, n.run(t, a, "look", "sleep", "1000"), "cat", "/etc/hosts")
			for _, ip := range ipsA {
				if !strings.Contains(hosts, ip+"\ta") {
					t.Errorf("/etc/hosts: got\n%s\nwant %s with the name a", hosts, ip)
				}
			}
		})
	}
}

// server starts an HTTP server that returns the address of the client.
type server struct{ seen chan struct{} }

func (s *server) count() int { return len(s.seen) }

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.seen <- struct{}{}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	fmt.Fprint(w, host)
}

func listen(t *testing.T, netns, addr string) *server {
	t.Helper()
	s := &server{seen: make(chan struct{}, 100)}
	var l net.Listener
	err := harness.In(netns, func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	h := &http.Server{Handler: s}
	go h.Serve(l) // the server ends when it is closed
	t.Cleanup(func() { _ = h.Close() })
	return s
}

func TestMacvlanBesideBridge(t *testing.T) {
	lan := aHost(t, "lan")
	wire(t, "", "lan0", lan, "port0", [2]string{"192.168.77.2/24", "192.168.77.1/24"})
	server := listen(t, lan, "192.168.77.1:80")
	n := makeNode("macvlan")
	n.Network = n.conflist(t, "10-criserver.conflist")
	n.Networks = map[string]string{"20-lan.conflist": n.conflist(t, "net/macvlan.conflist")}
	n.CNI = `additional_networks = ["lan"]`
	netNode(t, n, "lan")

	c := podConfig("a")
	c.Annotations = map[string]string{"criserver.io/networks": `[{"name":"lan","interface":"lan","mac":"02:00:00:00:00:77"}]`}
	a, plain := n.RunPod(t, c), n.RunPod(t, podConfig("plain"))
	if ips := n.podIPs(t, a.ID); len(ips) != 2 || strings.HasPrefix(ips[0], "192.168.77.") {
		t.Errorf("addresses of the pod: got %v, want two of the default network", ips)
	}
	const lanIP = "192.168.77.129" // the preceding address is reserved
	if got, err := fetch(n.netns(a), "192.168.77.1", 80, "/"); err != nil || got != lanIP {
		t.Errorf("client address in the LAN: got %q (error %v), want %s", got, err, lanIP)
	}
	if link := command(t, n.netns(a), "ip", "-o", "link", "show", "lan"); !strings.Contains(link, "02:00:00:00:00:77") {
		t.Errorf("interface: got %s, want the requested MAC address", link)
	}
	n.web(t, a)
	answers(t, lan, lanIP, 80)
	if out, err := try(n.netns(plain), "ip", "link", "show", "lan"); err == nil {
		t.Errorf("interface lan of a pod without the annotation: got %s, want none", out)
	}
	st, err := n.RuntimeService.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: a.ID, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		Interfaces []struct {
			Name, Network string
			CNIResult     json.RawMessage
		}
	}
	if err := json.Unmarshal([]byte(st.GetInfo()["info"]), &info); err != nil || len(info.Interfaces) != 1 ||
		info.Interfaces[0].Network != "lan" || !strings.Contains(string(info.Interfaces[0].CNIResult), lanIP+"/24") {
		t.Errorf("verbose status: got %s (error %v), want the interface lan with %s", st.GetInfo()["info"], err, lanIP)
	}
	n.Kill()
	n.restart(t)
	if got, err := fetch(n.netns(a), "192.168.77.1", 80, "/"); err != nil || got != lanIP || server.count() == 0 {
		t.Errorf("client address in the LAN after a restart: got %q (error %v), want %s", got, err, lanIP)
	}
	n.RemovePod(t, a.ID)
	if _, err := os.Stat(filepath.Join(n.Dir, "leases", "lan", lanIP)); err == nil {
		t.Errorf("lease of %s after the removal of the pod exists, want none", lanIP)
	}
}

func TestStaticAddressesOnStorageNetwork(t *testing.T) {
	n := makeNode("storage")
	n.Network = n.conflist(t, "10-criserver.conflist")
	n.Networks = map[string]string{"20-storage.conflist": example(t, "net/storage.conflist")}
	n.CNI = `additional_networks = ["storage"]`
	netNode(t, n, `[{"name":"storage","ips":["10.99.0.9/24"]}]`)
	var pods []*pod
	for _, ip := range []string{"10.99.0.1", "10.99.0.2"} {
		c := podConfig("s" + ip[len(ip)-1:])
		c.Annotations = map[string]string{"criserver.io/networks": fmt.Sprintf(`[{"name":"storage","ips":["%s/24"]}]`, ip)}
		pods = append(pods, n.RunPod(t, c))
	}
	n.web(t, pods[0])
	sees(t, n.netns(pods[1]), "10.99.0.1", 80, "10.99.0.2")
	if got := command(t, n.netns(pods[0]), "cat", "/proc/sys/net/ipv4/conf/net1/arp_filter"); got != "1\n" {
		t.Errorf("sysctl of the tuning plugin: got %q, want 1", got)
	}
	if link := command(t, n.netns(pods[0]), "ip", "-o", "link", "show", "net1"); !strings.Contains(link, "mtu 9000") {
		t.Errorf("interface: got %s, want MTU 9000", link)
	}
}

func TestPodOnNoneNetwork(t *testing.T) {
	n := makeNode("none")
	n.Network = n.conflist(t, "10-criserver.conflist")
	n.Networks = map[string]string{"05-none.conflist": example(t, "net/none.conflist")}
	n.CNI = `additional_networks = ["none"]`
	netNode(t, n)
	c := podConfig("alone")
	c.Annotations = map[string]string{"criserver.io/default-network": "none"}
	alone, other := n.RunPod(t, c), n.RunPod(t, podConfig("other"))
	n.web(t, alone) // the pod has a loopback interface
	n.web(t, other)
	if ips := n.podIPs(t, alone.ID); len(ips) != 1 || ips[0] != "" {
		t.Errorf("addresses of a pod without network: got %v, want none", ips)
	}
	if links := command(t, n.netns(alone), "ip", "-o", "link"); strings.Count(links, "\n") != 1 {
		t.Errorf("interfaces: got\n%s\nwant only lo", links)
	}
	if _, err := fetch(n.netns(alone), n.podIPs(t, other.ID)[0], 80, "/"); err == nil || !strings.Contains(err.Error(), "unreachable") {
		t.Errorf("request to another pod: got error %v, want unreachable", err)
	}
	answers(t, "", n.podIPs(t, other.ID)[0], 80)
}

func TestDefaultNetworkWithoutAddresses(t *testing.T) {
	n := makeNode("noaddresses")
	n.Network = example(t, "net/none.conflist")
	n.start(t)
	p := n.RunPod(t, podConfig("alone"))
	if ips := n.podIPs(t, p.ID); ips[0] != "" {
		t.Errorf("addresses of the pod: got %v, want none", ips)
	}
}

func TestChainOfPlugins(t *testing.T) {
	n := makeNode("chain")
	n.Network = n.conflist(t, "net/chain.conflist")
	netNode(t, n)
	c := podConfig("a")
	c.Annotations = map[string]string{"kubernetes.io/ingress-bandwidth": "8M", "kubernetes.io/egress-bandwidth": "4M"}
	a, b := n.RunPod(t, c), n.RunPod(t, podConfig("b"))
	n.web(t, a)
	sees(t, n.netns(b), n.podIPs(t, a.ID)[0], 80, n.podIPs(t, b.ID)[0])
	queues := command(t, "", "tc", "qdisc")
	for _, rate := range []string{"rate 8Mbit", "rate 4Mbit"} {
		if !strings.Contains(queues, rate) {
			t.Errorf("queueing disciplines: got\n%s\nwant one with %q", queues, rate)
		}
	}
	if rules := n.ruleset(t); !strings.Contains(rules, n.podIPs(t, b.ID)[0]) {
		t.Errorf("rules of the firewall plugin: got\n%s\nwant one that accepts traffic to b", rules)
	}
	if got := command(t, n.netns(b), "cat", "/proc/sys/net/core/somaxconn"); got != "512\n" {
		t.Errorf("sysctl of the tuning plugin: got %q, want 512", got)
	}
}
