package system

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/criserver/criserver/test/harness"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestNetworkRequestsThatAreRefused(t *testing.T) {
	n := makeNode("netrefused")
	n.Network = n.Bridge("csrefused", "10.105.0.0/24")
	n.CNI = `additional_networks = ["storage"]`
	n.start(t)
	port := func(p ...*cri.PortMapping) func(*cri.PodSandboxConfig) {
		return func(c *cri.PodSandboxConfig) { c.PortMappings = p }
	}
	note := func(key, value string) func(*cri.PodSandboxConfig) {
		return func(c *cri.PodSandboxConfig) { c.Annotations = map[string]string{key: value} }
	}
	dns := func(d *cri.DNSConfig) func(*cri.PodSandboxConfig) {
		return func(c *cri.PodSandboxConfig) { c.DnsConfig = d }
	}
	for name, tc := range map[string]struct {
		spoil func(*cri.PodSandboxConfig)
		says  string
	}{
		"host port below 0":        {port(&cri.PortMapping{HostPort: -1, ContainerPort: 80}), "port_mappings[0].host_port"},
		"host port above 65535":    {port(&cri.PortMapping{HostPort: 65536, ContainerPort: 80}), "port_mappings[0].host_port"},
		"container port 0":         {port(&cri.PortMapping{HostPort: 80}), "port_mappings[0].container_port"},
		"container port above":     {port(&cri.PortMapping{HostPort: 80, ContainerPort: 70000}), "port_mappings[0].container_port"},
		"container port below 0":   {port(&cri.PortMapping{HostPort: 80, ContainerPort: -80}), "port_mappings[0].container_port"},
		"host IP by name":          {port(&cri.PortMapping{HostPort: 80, ContainerPort: 80, HostIp: "localhost"}), "port_mappings[0].host_ip"},
		"host IP with a zone":      {port(&cri.PortMapping{HostPort: 80, ContainerPort: 80, HostIp: "fe80::1%eth0"}), "port_mappings[0].host_ip"},
		"host IP with a prefix":    {port(&cri.PortMapping{HostPort: 80, ContainerPort: 80, HostIp: "10.0.0.1/8"}), "port_mappings[0].host_ip"},
		"protocol 3":               {port(&cri.PortMapping{HostPort: 80, ContainerPort: 80, Protocol: 3}), "port_mappings[0].protocol"},
		"protocol 3, no host port": {port(&cri.PortMapping{ContainerPort: 80, Protocol: 3}), "port_mappings[0].protocol"},
		"second mapping":           {port(&cri.PortMapping{HostPort: 80, ContainerPort: 80}, &cri.PortMapping{HostPort: 99999, ContainerPort: 80}), "port_mappings[1].host_port"},
		"one port, two targets":    {port(&cri.PortMapping{HostPort: 80, ContainerPort: 80}, &cri.PortMapping{HostPort: 80, ContainerPort: 81}), "port_mappings"},
		"all addresses and one":    {port(&cri.PortMapping{HostPort: 80, ContainerPort: 80, HostIp: "0.0.0.0"}, &cri.PortMapping{HostPort: 80, ContainerPort: 81, HostIp: "10.0.0.1"}), "port_mappings"},
		"too many mappings":        {port(make([]*cri.PortMapping, 5000)...), "port_mappings"},
		"server empty":             {dns(&cri.DNSConfig{Servers: []string{""}}), "dns_config.servers"},
		"server with a port":       {dns(&cri.DNSConfig{Servers: []string{"10.0.0.1:53"}}), "dns_config.servers"},
		"33 servers":               {dns(&cri.DNSConfig{Servers: strings.Split(strings.Repeat("10.0.0.1 ", 33), " ")[:33]}), "dns_config.servers"},
		"search with a blank":      {dns(&cri.DNSConfig{Searches: []string{"a b"}}), "dns_config.searches"},
		"search of 256":            {dns(&cri.DNSConfig{Searches: []string{strings.Repeat("a", 256)}}), "dns_config.searches"},
		"option with a comment":    {dns(&cri.DNSConfig{Options: []string{"ndots:5#"}}), "dns_config.options"},
		"ingress rate":             {note("kubernetes.io/ingress-bandwidth", "fast"), "annotations[kubernetes.io/ingress-bandwidth]"},
		"egress rate":              {note("kubernetes.io/egress-bandwidth", "-1M"), "annotations[kubernetes.io/egress-bandwidth]"},
		"network not listed":       {note("criserver.io/networks", "lan"), "cni.additional_networks"},
		"interface eth0":           {note("criserver.io/networks", "storage@eth0"), "annotations[criserver.io/networks]"},
		"other default network":    {note("criserver.io/default-network", "lan"), "annotations[criserver.io/default-network]"},
	} {
		t.Run(name, func(t *testing.T) {
			config := podConfig("refused")
			tc.spoil(config)
			_, err := n.rt.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config})
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("want InvalidArgument that names %s, got %v", tc.says, err)
			}
		})
	}
	config := podConfig("absent")
	config.Annotations = map[string]string{"criserver.io/networks": "storage"}
	if _, err := n.rt.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config}); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), `"storage"`) {
		t.Errorf("a listed network that is not configured: %v", err)
	}
	if pods, _ := n.running(t); pods != 0 {
		t.Errorf("%d pods are there", pods)
	}
}

func TestResolvConf(t *testing.T) {
	n := newNode(t, "resolv", 106)
	host, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		dns  *cri.DNSConfig
		want string
	}{
		"none":         {nil, string(host)},
		"empty":        {&cri.DNSConfig{}, string(host)},
		"servers":      {&cri.DNSConfig{Servers: []string{"10.0.0.1"}}, "nameserver 10.0.0.1\n"},
		"searches":     {&cri.DNSConfig{Searches: []string{"a.b", "."}}, "search a.b .\n"},
		"options":      {&cri.DNSConfig{Options: []string{"ndots:5", "rotate"}}, "options ndots:5 rotate\n"},
		"link address": {&cri.DNSConfig{Servers: []string{"fe80::1%eth0", "::1"}}, "nameserver fe80::1%eth0\nnameserver ::1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			c := podConfig("dns" + strings.ReplaceAll(name, " ", ""))
			c.DnsConfig = tc.dns
			p := n.runPod(t, c)
			id := n.run(t, p, "c", "sleep", "1000")
			if got := n.exec(t, id, "cat", "/etc/resolv.conf"); got != strings.TrimRight(tc.want, "\n") {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestHostNames(t *testing.T) {
	n := newNode(t, "names", 107)
	own, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("a", 63)
	for name, tc := range map[string]struct{ asked, want string }{
		"short": {"web-0", "web-0"}, "qualified": {"web-0.web.ns.svc.cluster.local", "web-0.web.ns.svc.cluster.local"},
		"63": {long, long}, "none": {"", ""}, "host": {"ignored", own},
	} {
		t.Run(name, func(t *testing.T) {
			c := podConfig("name" + name)
			c.Hostname = tc.asked
			if name == "host" {
				c.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_NODE
			}
			p := n.runPod(t, c)
			if name == "none" {
				tc.want = p.id[:12]
			}
			id := n.run(t, p, "c", "sleep", "1000")
			if got := n.exec(t, id, "sh", "-c", "hostname; cat /etc/hostname"); got != tc.want+"\n"+tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if name == "host" {
				return
			}
			hosts, names := n.exec(t, id, "cat", "/etc/hosts"), tc.want
			if short, _, ok := strings.Cut(tc.want, "."); ok {
				names += "\t" + short
			}
			for _, ip := range n.podIPs(t, p.id) {
				if !strings.Contains(hosts+"\n", ip+"\t"+names+"\n") {
					t.Errorf("no %s for %q in %q", ip, names, hosts)
				}
			}
		})
	}
}

func TestHostNetworkPod(t *testing.T) {
	n := newNode(t, "hostpod", 108)
	c := podConfig("host")
	c.Hostname = ""
	c.PortMappings = []*cri.PortMapping{{HostPort: 8088, ContainerPort: 8088}} // as the kubelet sets them
	c.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_NODE
	p, twin := n.runPod(t, c), podConfig("twin")
	if ips := n.podIPs(t, p.id); len(ips) != 1 || ips[0] != "" {
		t.Errorf("addresses %v; the field is ignored for the host's network", ips)
	}
	twin.PortMappings = c.PortMappings // the other one's is no mapping, so this is no conflict
	n.runPod(t, twin)
	id := n.run(t, p, "c", "sleep", "1000")
	wire(t, "", "probe0", "", "probe1")
	if got := n.exec(t, id, "cat", "/proc/net/dev"); !strings.Contains(got, "probe0:") {
		t.Errorf("the container sees not the host's links but\n%s", got)
	}
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	if got := n.exec(t, id, "cat", "/etc/hosts"); got != strings.TrimRight(string(hosts), "\n") {
		t.Errorf("its hosts are %q, want the host's", got)
	}
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		port := page(t, "", at)
		local, stop := n.forward(t, "SPDY", p.id, port)
		if got, err := get(t, local); err != nil || got != at {
			t.Errorf("%s by port-forward: %q, %v", at, got, err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}

// page serves a word on a port of a network namespace and returns the port.
func page(t *testing.T, netns, at string) (port string) {
	t.Helper()
	var l net.Listener
	err := harness.In(netns, func() (err error) {
		l, err = net.Listen("tcp", at)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	h := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, at) })}
	go h.Serve(l) //nolint:errcheck // it serves until it is closed
	t.Cleanup(func() { _ = h.Close() })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

func TestPortForwardByFamily(t *testing.T) {
	n := newNode(t, "family", 109)
	p := n.runPod(t, podConfig("family"))
	for _, at := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0", "0.0.0.0:0"} {
		for transport := range executors {
			local, stop := n.forward(t, transport, p.id, page(t, n.netns(p), at))
			if got, err := get(t, local); err != nil || got != at {
				t.Errorf("%s over %s: %q, %v", at, transport, got, err)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestPrimaryAddress(t *testing.T) {
	for name, tc := range map[string]struct {
		subnets []string
		first   string
		n       int
	}{
		"IPv4":       {[]string{"10.110.0.0/24"}, "10.110.0.", 1},
		"IPv6":       {[]string{"fd00:110::/64"}, "fd00:110::", 1},
		"IPv4 first": {[]string{"10.110.0.0/24", "fd00:110::/64"}, "10.110.0.", 2},
		"IPv6 first": {[]string{"fd00:110::/64", "10.110.0.0/24"}, "fd00:110::", 2},
	} {
		t.Run(name, func(t *testing.T) {
			n := makeNode("prim" + strings.ReplaceAll(name, " ", ""))
			n.Network = n.Bridge("csprimary", tc.subnets...)
			n.start(t)
			a, b := n.runPod(t, podConfig("a")), n.runPod(t, podConfig("b"))
			ips := n.podIPs(t, a.id)
			if len(ips) != tc.n || !strings.HasPrefix(ips[0], tc.first) {
				t.Errorf("addresses %v", ips)
			}
			for _, ip := range ips {
				ping(t, n.netns(b), ip)
			}
			n.empty(t.Context()) //nolint:errcheck // it is looked at when the node is closed
			command(t, "", "ip", "link", "del", "csprimary")
			n.mark(t)
		})
	}
}

// plugin writes a CNI plugin made of shell commands into a directory of its own.
func plugin(t *testing.T, n *node, name, script string) {
	t.Helper()
	dir := filepath.Join(n.Dir, "plugins")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	n.PluginDirs = []string{dir}
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\nd="+dir+"\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestSeveralInterfacesInAResult is what a meta plugin answers.
func TestSeveralInterfacesInAResult(t *testing.T) {
	n := makeNode("meta")
	plugin(t, n, "meta", `cat >/dev/null; [ $CNI_COMMAND = ADD ] && cat <<E
{"cniVersion":"1.0.0","interfaces":[{"name":"vethmeta"},{"name":"net1","sandbox":"$CNI_NETNS"},{"name":"eth0","sandbox":"$CNI_NETNS"}],
"ips":[{"address":"10.7.0.1/24","interface":0},{"address":"10.8.0.2/24","interface":1},{"address":"fd08::2/64","interface":1},
{"address":"10.9.0.2/24","interface":2},{"address":"fd09::2/64","interface":2}]}
E
exit 0`)
	n.Network = `{"cniVersion":"1.0.0","name":"meta","plugins":[{"type":"meta"}]}`
	n.start(t)
	if got := fmt.Sprint(n.podIPs(t, n.runPod(t, podConfig("a")).id)); got != "[10.9.0.2 fd09::2 10.8.0.2 fd08::2]" {
		t.Errorf("addresses %s; want those of eth0 first and none of the host's", got)
	}
}

func (n *node) networkCondition(t *testing.T) *cri.RuntimeCondition {
	t.Helper()
	st, err := n.rt.Status(t.Context(), &cri.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range st.GetStatus().GetConditions() {
		if c.GetType() == cri.NetworkReady {
			return c
		}
	}
	t.Fatal("no condition NetworkReady")
	return nil
}

// TestPluginsThatFail has a plugin refuse, hang and recover.
func TestPluginsThatFail(t *testing.T) {
	n := makeNode("failing")
	// A file refuse-COMMAND has it refuse, and hang-COMMAND hang.
	plugin(t, n, "moody", `cat >/dev/null; echo $CNI_COMMAND >>$d/../calls
while [ -e $d/../hang-$CNI_COMMAND ]; do sleep 0.05; done
if [ -e $d/../refuse-$CNI_COMMAND ]; then echo '{"cniVersion":"1.1.0","code":50,"msg":"in a bad mood"}'; exit 1; fi
[ $CNI_COMMAND = ADD ] && echo '{"cniVersion":"1.1.0","ips":[{"address":"10.9.0.2/24"}]}'
exit 0`)
	n.Network = `{"cniVersion":"1.1.0","name":"moody","plugins":[{"type":"moody"}]}`
	mood := func(name string, on bool) {
		t.Helper()
		file := filepath.Join(n.Dir, name)
		if !on {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	n.start(t)

	mood("refuse-ADD", true)
	_, err := n.rt.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: podConfig("refused")})
	if err == nil || !strings.Contains(err.Error(), "in a bad mood") || !strings.Contains(err.Error(), `network "moody"`) {
		t.Errorf("got %v", err)
	}
	mood("refuse-ADD", false)
	if pods, _ := n.running(t); pods != 0 {
		t.Errorf("%d pods after a failed ADD", pods)
	}

	mood("hang-ADD", true)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = n.rt.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: podConfig("slow")})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	// All else goes on meanwhile, a pod that needs no plugin included.
	host := podConfig("host")
	host.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_NODE
	n.removePod(t, n.runPod(t, host).id)
	mood("hang-ADD", false)
	slow := n.runPod(t, podConfig("slow")) // the same request joins the first one
	if calls, _ := os.ReadFile(filepath.Join(n.Dir, "calls")); strings.Count(string(calls), "ADD\n") != 3 {
		t.Errorf("calls %q, want one ADD each for first, refused and slow", calls)
	}

	mood("refuse-DEL", true)
	if _, err := n.rt.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: slow.id}); err == nil || !strings.Contains(err.Error(), "in a bad mood") {
		t.Errorf("got %v", err)
	}
	st, err := n.rt.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: slow.id, Verbose: true})
	if err != nil || st.GetStatus().GetState() != cri.PodSandboxState_SANDBOX_NOTREADY || !strings.Contains(infoField(t, st.GetInfo()["info"], "notReadyReason"), "in a bad mood") {
		t.Errorf("status %v, %v", st, err)
	}
	mood("refuse-DEL", false)
	n.removePod(t, slow.id)

	// Status answers from what is known, however long the plugin takes.
	n.Kill()
	mood("hang-STATUS", true)
	n.restart(t)
	n.networkCondition(t)
	mood("refuse-STATUS", true)
	mood("hang-STATUS", false)
	n.networkReady(t, false)
	if c := n.networkCondition(t); !strings.Contains(c.GetMessage(), "in a bad mood") || !strings.Contains(c.GetMessage(), "code 50") {
		t.Errorf("condition %v", c)
	}
	if _, err := n.rt.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: podConfig("b")}); status.Code(err) != codes.Unavailable {
		t.Errorf("a pod while the network is not ready: %v", err)
	}
	mood("refuse-STATUS", false)
	n.networkReady(t, true)
	asked := func() int {
		calls, _ := os.ReadFile(filepath.Join(n.Dir, "calls"))
		return strings.Count(string(calls), "STATUS\n")
	}
	before := asked()
	for range 200 {
		n.networkCondition(t)
	}
	if after := asked(); after > before+1 {
		t.Errorf("the plugin was asked %d times for 200 questions", after-before)
	}
}

// TestDamagedNetwork has somebody take a pod's interface away behind the
// daemon's back, and leave a lease of no pod.
func TestDamagedNetwork(t *testing.T) {
	n := newNode(t, "damage", 111)
	p := n.runPod(t, podConfig("a"))
	info := func() (fault string, s *cri.PodSandboxStatus) {
		t.Helper()
		st, err := n.rt.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: p.id, Verbose: true})
		if err != nil {
			t.Fatal(err)
		}
		var m struct{ NetworkFault string }
		if err := json.Unmarshal([]byte(st.GetInfo()["info"]), &m); err != nil {
			t.Fatal(err)
		}
		return m.NetworkFault, st.GetStatus()
	}
	stray := filepath.Join(n.Dir, "leases", "csdamage", "10.111.0.77")
	if err := os.WriteFile(stray, []byte(strings.Repeat("ab", 32)+"\r\neth0"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.Kill()
	command(t, n.netns(p), "ip", "link", "del", "eth0")
	n.restart(t)
	var fault string
	var st *cri.PodSandboxStatus
	for end := time.Now().Add(30 * time.Second); fault == "" && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		fault, st = info()
	}
	if !strings.Contains(fault, "veth") || st.GetState() != cri.PodSandboxState_SANDBOX_READY {
		t.Errorf("fault %q, state %s", fault, st.GetState())
	}
	gone := false
	for end := time.Now().Add(30 * time.Second); !gone && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		_, err := os.Stat(stray)
		gone = os.IsNotExist(err)
	}
	if !gone {
		t.Error("the lease of no pod is left")
	}
	lease := filepath.Join(n.Dir, "leases", "csdamage", n.podIPs(t, p.id)[0])
	if _, err := os.Stat(lease); err != nil {
		t.Errorf("the lease of a pod: %v", err)
	}
	n.removePod(t, p.id)
	if _, err := os.Stat(lease); err == nil {
		t.Error("the lease outlives the pod")
	}
}
