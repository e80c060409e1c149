package network

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

const portsConf = `{"cniVersion":"1.1.0","name":"n","plugins":[{"type":"bridge","bridge":"br9","isGateway":true,"ipam":{"type":"host-local"}},{"type":"portmap","snat":true,"capabilities":{"portMappings":true}}]}`

func TestPlanHostPorts(t *testing.T) {
	change := func(old, next string) string {
		if !strings.Contains(portsConf, old) {
			t.Fatalf("the configuration does not contain %q", old)
		}
		return strings.Replace(portsConf, old, next, 1)
	}
	tests := map[string]struct {
		conf string
		want *hostPortPlan
	}{
		"usual":          {portsConf, &hostPortPlan{"criserver_hostports_n", "br9", true}},
		"default bridge": {change(`"bridge":"br9",`, ""), &hostPortPlan{"criserver_hostports_n", "cni0", true}},
		"no loopback":    {change(`"snat":true`, `"snat":false`), &hostPortPlan{"criserver_hostports_n", "br9", false}},
		"snat by itself": {change(`"snat":true,`, ""), &hostPortPlan{"criserver_hostports_n", "br9", true}},
		"nftables":       {change(`"snat":true`, `"snat":true,"backend":"nftables"`), &hostPortPlan{"criserver_hostports_n", "br9", true}},
		"iptables":       {change(`"snat":true`, `"snat":true,"backend":"iptables"`), nil},
		"conditions":     {change(`"snat":true`, `"conditionsV4":["-s","10.0.0.0/8"]`), nil},
		"another mark":   {change(`"snat":true`, `"markMasqBit":5`), nil},
		"no capability":  {change(`"portMappings":true`, `"portMappings":false`), nil},
		"other network":  {change(`"type":"bridge"`, `"type":"ptp"`), nil},
		"no gateway":     {change(`"isGateway":true`, `"isGateway":false`), nil},
		"VLAN":           {change(`"isGateway":true`, `"isGateway":true,"vlan":5`), nil},
		"two portmaps":   {change(`{"type":"portmap"`, `{"type":"portmap","backend":"iptables"},{"type":"portmap"`), nil},
		"no portmap":     {change(`"type":"portmap"`, `"type":"tuning"`), nil},
	}
	for name, tt := range tests {
		l, err := parseList([]byte(tt.conf))
		if err != nil {
			t.Fatal(err)
		}
		got := planHostPorts(l.conf)
		if (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
	}
}

// TestHostPortsInPlan checks that the plan of a pod says whether the daemon maps the host ports,
// and that a configuration file cannot say so.
func TestHostPortsInPlan(t *testing.T) {
	l, err := parseList([]byte(portsConf))
	if err != nil {
		t.Fatal(err)
	}
	l.hostPorts = planHostPorts(l.conf)
	tcp, udp := PortMapping{HostPort: 1, ContainerPort: 1, Protocol: "tcp"}, PortMapping{HostPort: 1, ContainerPort: 1, Protocol: "udp"}
	for name, tt := range map[string]struct {
		mappings []PortMapping
		plugins  int
		builtin  bool
	}{
		"none": {nil, 1, false}, "TCP": {[]PortMapping{tcp}, 1, true}, "UDP": {[]PortMapping{udp}, 1, true}, "both": {[]PortMapping{tcp, udp}, 1, true},
	} {
		planned, err := New(Config{}).podList(l, Pod{PortMappings: tt.mappings})
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseList(planned.planned)
		if err != nil || len(again.conf.Plugins) != tt.plugins || (again.hostPorts != nil) != tt.builtin {
			t.Errorf("%s: %d plugins, host ports of the daemon %v, %v", name, len(again.conf.Plugins), again.hostPorts, err)
		}
	}
	forged, err := parseList([]byte(strings.Replace(portsConf, `"name"`, `"io.criserver.hostPorts":{"table":"x"},"name"`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := inline(forged.conf)
	if err != nil || strings.Contains(string(raw), hostPortPlanKey) {
		t.Errorf("the plan of a configuration file was not removed: %s, %v", raw, err)
	}
}

func TestElements(t *testing.T) {
	both := []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24"), netip.MustParsePrefix("fd00::2/64")}
	table := portTable{pods: map[string]podPorts{
		"a": {addrs: both, mappings: []PortMapping{
			{80, 8080, "tcp", ""},
			{81, 8081, "tcp", "192.0.2.1"},
			{82, 8082, "sctp", "2001:db8::1"},
			{83, 8083, "tcp", "0.0.0.0"},
			{84, 8084, "tcp", "::"},
			{85, 8085, "tcp", "::ffff:192.0.2.1"},
		}},
		// The host port 80 of two pods, which the sandbox package prevents, must not affect the other host ports.
		"b": {[]netip.Prefix{netip.MustParsePrefix("10.0.0.3/24")}, []PortMapping{{80, 9, "tcp", ""}, {90, 9, "tcp", "2001:db8::1"}}},
	}}
	v4, v6 := &family{name: "ip"}, &family{name: "ip6"}
	ports := table.elements(v4, v6)
	for name, tt := range map[string]struct{ got, want []string }{
		"ports": {ports, []string{"tcp . 80", "tcp . 81", "tcp . 83", "tcp . 85", "sctp . 82", "tcp . 84"}},
		"all 4": {v4.all, []string{`tcp . 80 comment "pod a" : 10.0.0.2 . 8080`, `tcp . 83 comment "pod a" : 10.0.0.2 . 8083`}},
		"one 4": {v4.one, []string{`tcp . 192.0.2.1 . 81 comment "pod a" : 10.0.0.2 . 8081`, `tcp . 192.0.2.1 . 85 comment "pod a" : 10.0.0.2 . 8085`}},
		"all 6": {v6.all, []string{`tcp . 80 comment "pod a" : fd00::2 . 8080`, `tcp . 84 comment "pod a" : fd00::2 . 8084`}},
		"one 6": {v6.one, []string{`sctp . 2001:db8::1 . 82 comment "pod a" : fd00::2 . 8082`}},
		"net 4": {v4.subnets, []string{"10.0.0.0/24"}},
		"net 6": {v6.subnets, []string{"fd00::/64"}},
	} {
		if !slices.Equal(tt.got, tt.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", name, tt.got, tt.want)
		}
	}
}
