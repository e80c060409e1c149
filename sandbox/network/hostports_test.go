package network

import (
	"strings"
	"testing"

	"github.com/criserver/criserver/sandbox/network/nat"
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
		want *nat.HostPorts
	}{
		"usual":          {portsConf, &nat.HostPorts{Table: "criserver_hostports_n", Bridge: "br9", SNAT: true}},
		"default bridge": {change(`"bridge":"br9",`, ""), &nat.HostPorts{Table: "criserver_hostports_n", Bridge: "cni0", SNAT: true}},
		"no loopback":    {change(`"snat":true`, `"snat":false`), &nat.HostPorts{Table: "criserver_hostports_n", Bridge: "br9", SNAT: false}},
		"snat by itself": {change(`"snat":true,`, ""), &nat.HostPorts{Table: "criserver_hostports_n", Bridge: "br9", SNAT: true}},
		"nftables":       {change(`"snat":true`, `"snat":true,"backend":"nftables"`), &nat.HostPorts{Table: "criserver_hostports_n", Bridge: "br9", SNAT: true}},
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
