package podspec

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/criserver/criserver/sandbox/network"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestPorts(t *testing.T) {
	port := func(host, container int32, ip string) *cri.PortMapping {
		return &cri.PortMapping{HostPort: host, ContainerPort: container, HostIp: ip}
	}
	set := func(ports ...*cri.PortMapping) func(*cri.PodSandboxConfig) {
		return func(c *cri.PodSandboxConfig) { c.PortMappings = ports }
	}
	rules{
		"no host port":           {set(port(0, 0, "nonsense")), ""},
		"host port":              {set(port(80, 80, "::1")), ""},
		"host port 65536":        {set(port(65536, 80, "")), "port_mappings[0].host_port"},
		"negative host port":     {set(port(-1, 80, "")), "port_mappings[0].host_port"},
		"no container port":      {set(port(80, 0, "")), "port_mappings[0].container_port"},
		"invalid host IP":        {set(port(80, 80, ""), port(81, 80, "1.2.3")), "port_mappings[1].host_ip"},
		"unknown protocol":       {set(&cri.PortMapping{HostPort: 80, ContainerPort: 80, Protocol: 7}), "port_mappings[0].protocol"},
		"same mapping twice":     {set(port(80, 80, ""), port(80, 80, "")), ""},
		"two container ports":    {set(port(80, 80, ""), port(80, 81, "")), "host port 80/tcp"},
		"one and all host IPs":   {set(port(80, 80, ""), port(80, 81, "10.0.0.1")), ""},
		"all host IPs twice":     {set(port(80, 80, ""), port(80, 81, "0.0.0.0")), "host port 80/tcp"},
		"two forms of a host IP": {set(port(80, 80, "10.0.0.1"), port(80, 81, "::ffff:10.0.0.1")), "host port 80/tcp"},
		"all IPv4 and all IPv6":  {set(port(80, 80, "::"), port(80, 81, "0.0.0.0")), ""},
		"two host IPs":           {set(port(80, 80, "10.0.0.2"), port(80, 81, "10.0.0.1")), ""},
		"too many":               {set(slices.Repeat([]*cri.PortMapping{port(0, 0, "")}, maxPorts+1)...), "port_mappings has"},
	}.check(t, testNode())
}

func TestHostPortMappings(t *testing.T) {
	c := podConfig()
	c.PortMappings = []*cri.PortMapping{
		{HostPort: 0, ContainerPort: 1},
		{HostPort: 80, ContainerPort: 8080},
		{HostPort: 80, ContainerPort: 8080},
		{HostPort: 81, ContainerPort: 8080, HostIp: "0.0.0.0"},
		{HostPort: 80, ContainerPort: 8080, Protocol: cri.Protocol_SCTP, HostIp: "::1"},
	}
	got, err := json.Marshal(mustParse(t, c).PortMappings)
	const want = `[{"hostPort":80,"containerPort":8080,"protocol":"sctp","hostIP":"::1"},` +
		`{"hostPort":80,"containerPort":8080,"protocol":"tcp"},{"hostPort":81,"containerPort":8080,"protocol":"tcp","hostIP":"0.0.0.0"}]`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestPortsOverlap(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"", "", true},
		{"", "10.0.0.1", true},
		{"", "fd00::1", true},
		{"0.0.0.0", "10.0.0.1", true},
		{"0.0.0.0", "fd00::1", false},
		{"::", "10.0.0.1", false},
		{"::", "fd00::1", true},
		{"10.0.0.1", "10.0.0.1", true},
		{"10.0.0.1", "10.0.0.2", false},
		{"10.0.0.1", "::ffff:10.0.0.1", true},
		{"fd00::1", "fd00:0::1", true},
	} {
		a, b := network.PortMapping{HostPort: 1, Protocol: "tcp", HostIP: tt.a}, network.PortMapping{HostPort: 1, Protocol: "tcp", HostIP: tt.b}
		if PortsOverlap(a, b) != tt.want || PortsOverlap(b, a) != tt.want {
			t.Errorf("%q and %q: want %t", tt.a, tt.b, tt.want)
		}
		if b.Protocol = "udp"; PortsOverlap(a, b) {
			t.Errorf("%q and %q overlap, but have different protocols", tt.a, tt.b)
		}
	}
}
