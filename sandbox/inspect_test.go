package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/criserver/criserver/sandbox/network/inspect"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// shell runs a command.
func shell(t *testing.T, command string) {
	t.Helper()
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Errorf("%s: %v: %s", command, err, out)
	}
}

// errorsOf returns the errors of a report by their codes and subjects, and the remedies.
func errorsOf(t *testing.T, r *inspect.Report) (codes, remedies []string) {
	t.Helper()
	for _, e := range append(r.Errors, r.Rules.Errors...) {
		t.Errorf("the report has the error %q", e)
	}
	all := slices.Clone(r.Problems)
	for _, p := range r.Pods {
		if p.Error != "" {
			t.Errorf("pod %s has the error %q", p.Name, p.Error)
		}
		all = append(all, p.Problems...)
	}
	for _, p := range all {
		if p.Severity == inspect.Error {
			codes = append(codes, p.Code+" "+p.Subject)
			remedies = append(remedies, p.Remedy)
		}
	}
	return codes, remedies
}

// TestInspectFindsDamage damages the network of a pod in many ways. Each damage must be found. Where the remedy is a
// command, the command must repair the damage.
func TestInspectFindsDamage(t *testing.T) {
	for _, v := range []struct {
		name, backend string
		noBuiltin     bool
	}{{"built in", "nftables", false}, {"plugins", "nftables", true}, {"plugins with iptables", "iptables", true}} {
		t.Run(v.name, func(t *testing.T) {
			b, leases := realBed(t, v.backend)
			b.cfg.CNI.NoBuiltin = v.noBuiltin
			m := b.halted() // a running daemon repairs some of the damage by itself
			web := podConfig("web")
			web.PortMappings = []*cri.PortMapping{
				{HostPort: 18080, ContainerPort: 80},
				{Protocol: cri.Protocol_UDP, HostPort: 18053, ContainerPort: 53, HostIp: "127.0.0.1"},
			}
			web.DnsConfig = &cri.DNSConfig{Servers: []string{"10.96.0.10"}, Searches: []string{"svc.example"}, Options: []string{"ndots:5"}}
			p, other := mustRun(t, m, web), mustRun(t, m, podConfig("other"))
			defer mustRemove(t, m, p.ID, other.ID)
			checkInspected(t, m, p, v.backend, v.noBuiltin)
			inPod, veth := "nsenter --net="+p.Namespaces.Net+" ", hostVeth(t, p)
			table := map[string]string{
				"built in": "nft flush map inet criserver_hostports_criserver all_ip", "plugins": "nft flush chain ip cni_hostport hostports",
				"plugins with iptables": "iptables -t nat -F CNI-HOSTPORT-DNAT",
			}[v.name]
			masquerade := map[string]string{
				"built in": "nft flush chain inet criserver_masquerade_criserver postrouting", "plugins": "nft flush chain inet cni_plugins_masquerade masq_checks",
				"plugins with iptables": "iptables -t nat -F POSTROUTING",
			}[v.name]
			savedNS := filepath.Join(t.TempDir(), "net")
			// The first error must be found; the damages of one table are repaired by the commands of the remedies.
			for _, tt := range []struct{ damage, want string }{
				{inPod + "ip link set eth0 down", "interface-down eth0"},
				{inPod + "ip link set lo down", "interface-down lo"},
				{"ip link set " + veth + " down", "interface-down " + veth},
				{"ip link set " + veth + " nomaster", "not-a-port " + veth},
				{inPod + "ip addr del " + p.IPs[0].String() + "/16 dev eth0", "address-missing eth0"},
				{inPod + "ip -6 addr del " + p.IPs[1].String() + "/64 dev eth0", "address-missing eth0"},
				{inPod + "ip route del default", "route-missing eth0"},
				{inPod + "ip -6 route del default", "route-missing eth0"},
				{inPod + "ip link set eth0 mtu 1400", "mtu " + veth},
				{"ip link set " + veth + " mtu 1400", "mtu " + veth},
				{"ip link set crisbxt0 mtu 1300", "mtu crisbxt0"},
				{"ip link set crisbxt0 down", "bridge-down bridge crisbxt0"},
				{"ip addr del 10.88.0.1/16 dev crisbxt0", "gateway-missing bridge crisbxt0"},
				{"sysctl -q -w net.ipv4.ip_forward=0", "forwarding-off net.ipv4.ip_forward"},
			} {
				shell(t, tt.damage)
				codes, _ := errorsOf(t, m.InspectNetwork(t.Context()))
				if !slices.Contains(codes, tt.want) {
					t.Errorf("after %q: got %q, want %q", tt.damage, codes, tt.want)
				}
				repair(t, m)
			}
			for _, tt := range []struct {
				damage string
				want   []string
				undo   string // "" if there is no way back
			}{
				{
					inPod + "ip addr add " + other.IPs[0].String() + "/16 dev eth0",
					[]string{"address-in-use " + other.IPs[0].String(), "address-in-use " + other.IPs[0].String()},
					inPod + "ip addr del " + other.IPs[0].String() + "/16 dev eth0",
				},
				{fmt.Sprintf("mv %[1]s %[1]s.saved", p.ResolvConf), []string{"dns-missing " + p.ResolvConf}, fmt.Sprintf("mv %[1]s.saved %[1]s", p.ResolvConf)},
				{"sed -i -e 1i#changed " + p.ResolvConf, []string{"dns-differs " + p.ResolvConf}, "sed -i -e 1d " + p.ResolvConf},
				{
					fmt.Sprintf("mv %s/criserver/%s %s/saved", leases, p.IPs[0], leases),
					[]string{"lease-missing " + p.IPs[0].String()},
					fmt.Sprintf("mv %s/saved %s/criserver/%s", leases, leases, p.IPs[0]),
				},
				{
					// The plugins find the rules of a pod only through its namespace, so the namespace must come back.
					fmt.Sprintf("touch %[1]s && mount --bind %[2]s %[1]s && umount %[2]s", savedNS, p.Namespaces.Net),
					[]string{"namespace-missing " + p.Namespaces.Net},
					fmt.Sprintf("mount --bind %[1]s %[2]s && umount %[1]s", savedNS, p.Namespaces.Net),
				},
				{table, []string{"host-port-missing host port 18080/tcp"}, ""},
				{
					masquerade,
					[]string{"masquerade-missing " + other.IPs[0].String(), "masquerade-missing " + p.IPs[0].String()},
					"",
				},
			} {
				shell(t, tt.damage)
				codes, _ := errorsOf(t, m.InspectNetwork(t.Context()))
				for _, w := range tt.want {
					if !slices.Contains(codes, w) {
						t.Errorf("after %q: got %q, want %q", tt.damage, codes, w)
					}
				}
				if tt.undo != "" {
					shell(t, tt.undo)
					if codes, _ := errorsOf(t, m.InspectNetwork(t.Context())); codes != nil {
						t.Errorf("after %q: got %q, want no error", tt.undo, codes)
					}
				}
			}
		})
	}
}

// repair runs the commands of the remedies until the report has no errors. A remedy can show the next problem: a route
// needs an interface that is up.
func repair(t *testing.T, m *Manager) {
	t.Helper()
	for range 5 {
		codes, remedies := errorsOf(t, m.InspectNetwork(t.Context()))
		if codes == nil {
			return
		}
		command, ok := "", false
		for _, r := range remedies {
			if _, after, found := strings.Cut(r, "Run `"); found && !ok {
				command, _, ok = strings.Cut(after, "`")
			}
		}
		if !ok {
			t.Fatalf("errors %q with the remedies %q, want a command", codes, remedies)
		}
		shell(t, command)
	}
	codes, _ := errorsOf(t, m.InspectNetwork(t.Context()))
	if codes != nil {
		t.Fatalf("errors after all remedies: %q", codes)
	}
}

// checkInspected checks the report of a network without damage.
func checkInspected(t *testing.T, m *Manager, p *Pod, backend string, noBuiltin bool) {
	t.Helper()
	r := m.InspectNetwork(t.Context())
	if codes, _ := errorsOf(t, r); codes != nil {
		t.Errorf("errors of a network without damage: %q", codes)
	}
	if len(r.Pods) != 2 || r.Pods[0].ID != p.ID || len(r.Bridges) != 1 || len(r.Networks) != 1 || r.Networks[0].Pods != 2 {
		t.Fatalf("got %+v", r)
	}
	got, bridge := r.Pods[0], r.Bridges[0]
	if got.NetNS.Inode == 0 || len(got.Interfaces) != 2 || got.Interfaces[0].Name != "lo" || got.Interfaces[1].Peer == nil || got.Interfaces[1].Port == nil {
		t.Fatalf("pod: got %+v", got)
	}
	eth0 := got.Interfaces[1]
	if eth0.Peer.Name != hostVeth(t, p) || eth0.Port.Bridge != "crisbxt0" || !eth0.Port.Hairpin || eth0.Port.State != "forwarding" || !eth0.Carrier || eth0.MTU != 1500 {
		t.Errorf("eth0: got %+v, peer %+v, port %+v", eth0, eth0.Peer, eth0.Port)
	}
	if len(bridge.Ports) != 2 || bridge.Ports[0].Pod != p.ID || bridge.STP || bridge.VLANs || bridge.RouteLocalnet != "1" {
		t.Errorf("bridge: got %+v", bridge)
	}
	attached := got.Attachments[0]
	if attached.Network.Name != "criserver" || attached.Network.Plugins[0].Builtin == noBuiltin || !attached.HasResultFile || filepath.Base(attached.Network.File) != "10-test.conflist" {
		t.Errorf("attachment: got %+v", attached)
	}
	defaults := 0
	for _, route := range got.Routes {
		if route.Dst.Bits() == 0 && route.Interface == "eth0" && route.Gateway.IsValid() {
			defaults++
		}
	}
	if defaults != 2 || len(got.Masquerade) != 2 {
		t.Errorf("routes: got %+v, masquerading: got %+v, want a default route and a rule of each family", got.Routes, got.Masquerade)
	}
	var ports []string
	for _, h := range got.HostPorts {
		ports = append(ports, fmt.Sprintf("%s %s %d %s %d", h.Protocol, h.Host, h.HostPort, h.Pod, h.PodPort))
	}
	slices.Sort(ports)
	want := []string{
		fmt.Sprintf("tcp invalid IP 18080 %s 80", p.IPs[0]), fmt.Sprintf("tcp invalid IP 18080 %s 80", p.IPs[1]),
		fmt.Sprintf("udp 127.0.0.1 18053 %s 53", p.IPs[0]),
	}
	slices.Sort(want)
	if !slices.Equal(ports, want) {
		t.Errorf("host ports with %s: got %q, want %q", backend, ports, want)
	}
	if d := got.DNS; !slices.Equal(d.Servers, []string{"10.96.0.10"}) || !slices.Equal(d.Searches, []string{"svc.example"}) || !slices.Equal(d.Options, []string{"ndots:5"}) || d.FromHost {
		t.Errorf("DNS: got %+v", d)
	}
}

// TestInspectShaping checks that the limits of the plugin bandwidth are found, and that missing limits are a problem.
func TestInspectShaping(t *testing.T) {
	b, leases := bridgeBed(t, "", `,"ranges":[[{"subnet":"10.205.0.0/16"}]]`)
	conf := strings.Replace(bridgeConf(leases, "", `,"ranges":[[{"subnet":"10.205.0.0/16"}]]`), "}}]}", `}},{"type":"bandwidth","capabilities":{"bandwidth":true}}]}`, 1)
	b.writeConf("10-test.conflist", conf)
	m := b.halted()
	c := podConfig("limited")
	c.Annotations = map[string]string{"kubernetes.io/ingress-bandwidth": "8M", "kubernetes.io/egress-bandwidth": "4M"}
	p := mustRun(t, m, c)
	defer mustRemove(t, m, p.ID)
	got := m.InspectNetwork(t.Context()).Pods[0]
	veth := hostVeth(t, p)
	if len(got.Shaping) != 2 || got.Shaping[0].Rate != 8_000_000 || !got.Shaping[0].Ingress || got.Shaping[0].Device != veth || got.Shaping[1].Rate != 4_000_000 || got.Shaping[1].Ingress {
		t.Errorf("got %+v, want 8 Mbit/s to the pod and 4 Mbit/s from the pod", got.Shaping)
	}
	shell(t, "tc qdisc del dev "+veth+" root")
	codes, _ := errorsOf(t, m.InspectNetwork(t.Context()))
	if !slices.Equal(codes, []string{"shaping-missing eth0"}) {
		t.Errorf("got %q, want shaping-missing", codes)
	}
}

// TestInspectOtherPods checks pods with the network of the host, stopped pods, and pods whose namespace cannot be read.
func TestInspectOtherPods(t *testing.T) {
	b, _ := bridgeBed(t, "", `,"ranges":[[{"subnet":"10.205.0.0/16"}]]`)
	m := b.halted()
	host, stopped, broken, fine := mustRun(t, m, hostPod("host")), mustRun(t, m, podConfig("stopped")), mustRun(t, m, podConfig("broken")), mustRun(t, m, podConfig("fine"))
	defer mustRemove(t, m, host.ID, stopped.ID, broken.ID, fine.ID)
	if err := m.Stop(t.Context(), stopped.ID); err != nil {
		t.Fatal(err)
	}
	// A namespace of another kind is in place of the network namespace.
	shell(t, fmt.Sprintf("umount %[1]s && mount --bind /proc/self/ns/uts %[1]s", broken.Namespaces.Net))
	defer shell(t, "umount "+broken.Namespaces.Net)
	r := m.InspectNetwork(t.Context())
	if len(r.Pods) != 4 {
		t.Fatalf("got %d pods, want 4", len(r.Pods))
	}
	if p := r.Pods[0]; !p.HostNetwork || p.Error != "" || len(p.Interfaces) != 0 || p.DNS.Path == "" {
		t.Errorf("pod with the network of the host: got %+v", p)
	}
	if p := r.Pods[1]; p.NotReady == "" || len(p.Problems) != 0 || len(p.Attachments) != 1 {
		t.Errorf("stopped pod: got %+v", p)
	}
	if p := r.Pods[2]; p.Error == "" || len(p.Interfaces) != 0 {
		t.Errorf("pod whose namespace cannot be read: got %+v", p)
	}
	if p := r.Pods[3]; p.Error != "" || len(p.Interfaces) != 2 || len(p.Problems) > 1 {
		t.Errorf("pod without a problem: got %+v", p)
	}
	if !r.HasErrors() {
		t.Error("a pod that cannot be read must count as an error")
	}
	if _, err := os.Stat(fine.ResolvConf); err != nil {
		t.Error(err)
	}
}
