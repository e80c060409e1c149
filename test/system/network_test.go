package system

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

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
		change func(*cri.PodSandboxConfig)
		says   string
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
		"all addresses twice":      {port(&cri.PortMapping{HostPort: 80, ContainerPort: 80, HostIp: "0.0.0.0"}, &cri.PortMapping{HostPort: 80, ContainerPort: 81}), "port_mappings"},
		"too many mappings":        {port(make([]*cri.PortMapping, 5000)...), "port_mappings"},
		"1025 servers":             {dns(&cri.DNSConfig{Servers: make([]string, 1025)}), "dns_config.servers"},
		"search of 2049":           {dns(&cri.DNSConfig{Searches: []string{strings.Repeat("a", 2049)}}), "dns_config.searches"},
		"option with a tab":        {dns(&cri.DNSConfig{Options: []string{"ndots:5\t"}}), "dns_config.options"},
		"ingress rate":             {note("kubernetes.io/ingress-bandwidth", "fast"), "annotations[kubernetes.io/ingress-bandwidth]"},
		"egress rate":              {note("kubernetes.io/egress-bandwidth", "-1M"), "annotations[kubernetes.io/egress-bandwidth]"},
		"network not listed":       {note("criserver.io/networks", "lan"), "cni.additional_networks"},
		"interface eth0":           {note("criserver.io/networks", "storage@eth0"), "annotations[criserver.io/networks]"},
		"other default network":    {note("criserver.io/default-network", "lan"), "annotations[criserver.io/default-network]"},
	} {
		t.Run(name, func(t *testing.T) {
			config := podConfig("refused")
			tc.change(config)
			_, err := n.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config})
			if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("run the pod: got error %v, want InvalidArgument with %s", err, tc.says)
			}
		})
	}
	config := podConfig("absent")
	config.Annotations = map[string]string{"criserver.io/networks": "storage"}
	if _, err := n.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config}); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), `"storage"`) {
		t.Errorf("network that is allowed but not configured: got error %v, want Unavailable with the network", err)
	}
	if pods, _ := n.running(t); pods != 0 {
		t.Errorf("pods: got %d, want none", pods)
	}
}

func TestHostNetworkPod(t *testing.T) {
	n := newNode(t, "hostpod", 108)
	c := podConfig("host")
	c.Hostname = ""
	c.PortMappings = []*cri.PortMapping{{HostPort: 8088, ContainerPort: 8088}} // like the kubelet
	c.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_NODE
	p, twin := n.RunPod(t, c), podConfig("twin")
	if ips := n.podIPs(t, p.ID); len(ips) != 1 || ips[0] != "" {
		t.Errorf("addresses: got %v, want none with the host's network", ips)
	}
	twin.PortMappings = c.PortMappings // pods with the host's network have no mappings, so there is no conflict
	n.RunPod(t, twin)
	id := n.run(t, p, "c", "sleep", "1000")
	wire(t, "", "probe0", "", "probe1")
	if got := n.Exec(t, id, "cat", "/proc/net/dev"); !strings.Contains(got, "probe0:") {
		t.Errorf("links in the container, want those of the host:\n%s", got)
	}
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	if got := n.Exec(t, id, "cat", "/etc/hosts"); got != strings.TrimRight(string(hosts), "\n") {
		t.Errorf("/etc/hosts: got %q, want that of the host", got)
	}
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		port := page(t, "", addr)
		local, stop := n.forward(t, "SPDY", p.ID, port)
		if got, err := get(t, local); err != nil || got != addr {
			t.Errorf("page through a port forward: got %q (error %v), want %q", got, err, addr)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}

// page starts an HTTP server in a network namespace and returns its port. The server returns
// addr, its address.
func page(t *testing.T, netns, addr string) (port string) {
	t.Helper()
	var l net.Listener
	err := harness.In(netns, func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	h := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, addr) })}
	go h.Serve(l) // the server ends when it is closed
	t.Cleanup(func() { _ = h.Close() })
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

func TestPortForwardByFamily(t *testing.T) {
	n := newNode(t, "family", 109)
	p := n.RunPod(t, podConfig("family"))
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0", "0.0.0.0:0"} {
		for transport := range executors {
			local, stop := n.forward(t, transport, p.ID, page(t, n.netns(p), addr))
			if got, err := get(t, local); err != nil || got != addr {
				t.Errorf("page through a port forward over %s: got %q (error %v), want %q", transport, got, err, addr)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestDaemonEndsAfterDetach ends the daemon directly after it has detached a pod whose network namespace a process
// keeps. The veth pair must be deleted when the daemon stops, and when the next daemon starts after a kill.
func TestDaemonEndsAfterDetach(t *testing.T) {
	n := newNode(t, "detached", 227)
	for _, tc := range []struct {
		name string
		end  func() error
	}{
		{"stop", n.Stop},
		{"kill", func() error { n.Kill(); n.restart(t); return nil }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := n.RunPod(t, podConfig("detached"+tc.name))
			keeper := exec.Command("nsenter", "--net="+n.netns(p), "sh", "-c", "echo; exec sleep 1000")
			keeper.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			out, err := keeper.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := keeper.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _, _ = keeper.Process.Kill(), keeper.Wait() }()
			if _, err := out.Read(make([]byte, 1)); err != nil { // the process is in the namespace
				t.Fatal(err)
			}
			if _, err := n.RuntimeService.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: p.ID}); err != nil {
				t.Fatal(err)
			}
			if err := tc.end(); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the deletion of eth0", func() bool {
				links, err := exec.Command("nsenter", "--target", strconv.Itoa(keeper.Process.Pid), "--net", "ip", "-o", "link").CombinedOutput()
				return err == nil && !strings.Contains(string(links), "eth0")
			})
			if tc.name == "stop" {
				n.restart(t)
			}
			n.RemovePod(t, p.ID)
		})
	}
}
