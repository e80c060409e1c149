package network

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/vishvananda/netlink"
)

// TestBuiltinLikePlugins attaches a pod with the built-in bridge and with the plugins, for each
// option that the built-in bridge handles, and compares the results, the interfaces of the pod and
// of the host, and the leases.
func TestBuiltinLikePlugins(t *testing.T) {
	const both = `"ranges":[[{"subnet":"10.68.0.0/24"}],[{"subnet":"fd68::/64"}]]`
	type test struct {
		version, bridge, ipam, chain string
		pod                          Pod
	}
	ports := Pod{PortMappings: []PortMapping{{HostPort: 18080, ContainerPort: 80, Protocol: "tcp"}, {HostPort: 18080, ContainerPort: 80, Protocol: "udp"}}}
	for name, tt := range map[string]test{
		"no options":              {ipam: both},
		"isGateway":               {bridge: `,"isGateway":true`, ipam: both},
		"isDefaultGateway":        {bridge: `,"isDefaultGateway":true`, ipam: both},
		"default route and route": {bridge: `,"isDefaultGateway":true`, ipam: both + `,"routes":[{"dst":"0.0.0.0/0","gw":"10.68.0.9"}]`},
		"hairpinMode":             {bridge: `,"isGateway":true,"hairpinMode":true`, ipam: both},
		"mtu":                     {bridge: `,"isGateway":true,"mtu":1400`, ipam: both},
		"ipMasq":                  {bridge: `,"isGateway":true,"ipMasq":true`, ipam: both},
		"ipMasqBackend":           {bridge: `,"isGateway":true,"ipMasq":true,"ipMasqBackend":"nftables"`, ipam: both},
		"subnet":                  {bridge: `,"isGateway":true`, ipam: `"subnet":"10.68.0.0/24"`},
		"subnet and gateway":      {bridge: `,"isGateway":true`, ipam: `"subnet":"10.68.0.0/24","gateway":"10.68.0.254"`},
		"rangeStart, rangeEnd":    {bridge: `,"isGateway":true`, ipam: `"subnet":"10.68.0.0/24","rangeStart":"10.68.0.40","rangeEnd":"10.68.0.41"`},
		// The plugin refuses two IPv4 gateways on a bridge; the built-in bridge accepts them.
		"subnet and ranges":       {ipam: `"subnet":"10.67.0.0/24",` + both},
		"ranges in one set":       {bridge: `,"isGateway":true`, ipam: `"ranges":[[{"subnet":"10.68.0.0/24","rangeStart":"10.68.0.7","rangeEnd":"10.68.0.7"},{"subnet":"10.69.0.0/24"}]]`},
		"gateway is first in use": {bridge: `,"isGateway":true`, ipam: `"ranges":[[{"subnet":"fd68::/120","gateway":"fd68::2","rangeStart":"fd68::2"}]]`},
		"routes":                  {bridge: `,"isGateway":true`, ipam: both + `,"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"},{"dst":"10.99.0.0/16","gw":"10.68.0.7"}]`},
		"equal routes":            {bridge: `,"isGateway":true`, ipam: both + `,"routes":[{"dst":"10.99.0.0/16","gw":"10.68.0.7"},{"dst":"10.99.0.0/16","gw":"10.68.0.8"}]`},
		"version 0.3.1":           {version: "0.3.1", bridge: `,"isGateway":true`, ipam: both},
		"version 0.4.0":           {version: "0.4.0", bridge: `,"isGateway":true`, ipam: both},
		"version 1.0.0":           {version: "1.0.0", bridge: `,"isGateway":true`, ipam: both},
		"bandwidth without rates": {bridge: `,"isGateway":true`, ipam: both, chain: `,{"type":"bandwidth","capabilities":{"bandwidth":true}}`},
		"portmap without ports":   {bridge: `,"isGateway":true`, ipam: both, chain: `,{"type":"portmap","capabilities":{"portMappings":true}}`},
		"portmap":                 {bridge: `,"isGateway":true`, ipam: both, chain: `,{"type":"portmap","backend":"nftables","snat":true,"capabilities":{"portMappings":true}}`, pod: ports},
		"portmap without snat":    {bridge: `,"isGateway":true`, ipam: both, chain: `,{"type":"portmap","backend":"nftables","snat":false,"capabilities":{"portMappings":true}}`, pod: ports},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.version == "" {
				tt.version = "1.1.0"
			}
			var states [2]string
			for i, noBuiltin := range []bool{false, true} {
				leases := filepath.Join(t.TempDir(), "leases")
				conf := fmt.Sprintf(`{"cniVersion":%q,"name":"opt","plugins":[{"type":"bridge","bridge":"criopt0"%s,"ipam":{"type":"host-local","dataDir":%q,%s}}%s]}`,
					tt.version, tt.bridge, leases, tt.ipam, tt.chain)
				states[i] = attachAndDetach(t, conf, filepath.Join(leases, "opt"), noBuiltin, tt.pod)
			}
			if states[0] != states[1] {
				t.Errorf("built in:\n%s\nplugins:\n%s", states[0], states[1])
			}
		})
	}
}

func cniPlugins(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("CNI_PATH")
	if dir == "" {
		dir, _ = filepath.Abs("../../bin/cni")
	}
	if _, err := os.Stat(filepath.Join(dir, "bridge")); err != nil {
		t.Fatalf("no CNI plugins in %s: run \"make tools\" or set CNI_PATH", dir)
	}
	return dir
}

// attachAndDetach returns what can be seen of a pod after ADD, CHECK and DEL, in a form that two pods have in common.
func attachAndDetach(t *testing.T, conf, leases string, noBuiltin bool, pod Pod) string {
	t.Helper()
	pod.ID, pod.Name, pod.Namespace, pod.UID, pod.NetNS = "pod", "p", "n", "u", makeNetNS(t)
	dir := t.TempDir()
	writeFile(t, dir, "10-opt.conflist", conf)
	n := New(Config{ConfDirs: []string{dir}, BinDirs: []string{cniPlugins(t)}, CacheDir: filepath.Join(dir, "cache"), NoBuiltin: noBuiltin})
	if _, err := n.Reload(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	defer func() { // the next bridge must be a new one
		if l, err := netlink.LinkByName("criopt0"); err == nil {
			_ = netlink.LinkDel(l)
		}
		_ = exec.Command("nft", "flush", "ruleset").Run()
	}()
	l, err := n.podList(n.loaded.Load().list, pod)
	if err != nil {
		t.Fatal(err)
	}
	i := Default(l.planned)
	res, err := n.Attach(t.Context(), pod, i)
	if err != nil {
		t.Fatal(err)
	}
	i.Result = res.JSON
	var out strings.Builder
	fmt.Fprintf(&out, "result %s\naddresses %v\n", res.JSON, res.IPs)
	if err := n.Check(t.Context(), pod, i); err != nil {
		t.Errorf("CHECK, NoBuiltin %t: %v", noBuiltin, err)
	}
	_ = namespace.RunInNet(pod.NetNS, func() error {
		out.WriteString("pod:\n" + interfaces(t) + readSysctls(t, "ipv4/conf/eth0/arp_notify", "ipv6/conf/eth0/disable_ipv6", "ipv6/conf/eth0/accept_dad", "ipv6/conf/eth0/keep_addr_on_down"))
		return nil
	})
	out.WriteString("host:\n" + interfaces(t) + readSysctls(t, "ipv6/conf/criopt0/accept_ra", "ipv4/conf/criopt0/route_localnet"))
	out.WriteString(readLeases(t, leases))
	if err := n.Detach(t.Context(), pod, i); err != nil {
		t.Errorf("DEL, NoBuiltin %t: %v", noBuiltin, err)
	}
	out.WriteString("after DEL:\n" + readLeases(t, leases))
	return normalize(out.String())
}

// normalize replaces the names and numbers that differ from pod to pod.
func normalize(s string) string {
	for _, r := range [][2]string{
		{`veth[0-9a-f]{8}`, "vethX"},
		{`([0-9a-f]{2}:){5}[0-9a-f]{2}`, "MAC"},
		{`fe80::[0-9a-f:]+`, "fe80::X"},
		{`"(/[^"]*)/ns/net"`, `"NETNS"`},
	} {
		s = regexp.MustCompile(r[0]).ReplaceAllString(s, r[1])
	}
	return s
}

// interfaces describes the interfaces, addresses and routes of the network namespace of the calling thread.
func interfaces(t *testing.T) string {
	t.Helper()
	h, err := netlink.NewHandle()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, l := range links {
		a := l.Attrs()
		if a.Name == "lo" || strings.HasPrefix(a.Name, "veth") && a.MasterIndex == 0 { // an interface of an earlier pod
			continue
		}
		line := fmt.Sprintf("%s %s mtu %d flags %s", a.Name, l.Type(), a.MTU, a.Flags&^net.FlagRunning)
		if p, err := h.LinkGetProtinfo(l); err == nil && a.MasterIndex != 0 {
			line += " port hairpin " + fmt.Sprint(p.Hairpin)
		}
		addrs, err := h.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			t.Fatal(err)
		}
		for _, addr := range addrs {
			if !addr.IP.IsLinkLocalUnicast() {
				lines = append(lines, fmt.Sprintf("%s address %s broadcast %s scope %d", a.Name, addr.IPNet, addr.Broadcast, addr.Scope))
			}
		}
		routes, err := h.RouteList(l, netlink.FAMILY_ALL)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range routes {
			if r.Dst == nil || !r.Dst.IP.IsLinkLocalUnicast() && !r.Dst.IP.IsMulticast() {
				lines = append(lines, fmt.Sprintf("%s route to %v via %v from %v protocol %d scope %d metric %d", a.Name, r.Dst, r.Gw, r.Src, r.Protocol, r.Scope, r.Priority))
			}
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

func readSysctls(t *testing.T, names ...string) string {
	t.Helper()
	var out strings.Builder
	for _, name := range names {
		b, err := os.ReadFile("/proc/sys/net/" + name)
		fmt.Fprintf(&out, "%s %s %v\n", name, strings.TrimSpace(string(b)), err)
	}
	return out.String()
}

func readLeases(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		text, _ := json.Marshal(string(b))
		fmt.Fprintf(&out, "%s %s\n", e.Name(), text)
	}
	return out.String()
}
