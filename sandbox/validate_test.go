package sandbox

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/types"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func unitManager(t *testing.T, change func(*Config)) *Manager {
	t.Helper()
	cfg := Config{
		RunDir: t.TempDir(), Containers: &fakeContainers{}, Cgroups: &fakeCgroups{}, PausePath: "/pause",
		KnownHandler: func(name string) bool { return name == "" || name == "runc" },
		HandlerNames: func() []string { return []string{"runc"} },
	}
	if change != nil {
		change(&cfg)
	}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestValidate(t *testing.T) {
	m := unitManager(t, nil)
	tests := map[string]struct {
		change func(*cri.PodSandboxConfig)
		want   string // in the error; "" for none
	}{
		"plain":                  {func(*cri.PodSandboxConfig) {}, ""},
		"no linux part":          {func(c *cri.PodSandboxConfig) { c.Linux = nil }, ""},
		"no host port, bad rest": {func(c *cri.PodSandboxConfig) { c.PortMappings = ports(0, 0, "nonsense") }, ""},
		"host port":              {func(c *cri.PodSandboxConfig) { c.PortMappings = ports(80, 80, "::1") }, ""},
		"host port of 65536":     {func(c *cri.PodSandboxConfig) { c.PortMappings = ports(65536, 80, "") }, "port_mappings[0].host_port"},
		"negative host port":     {func(c *cri.PodSandboxConfig) { c.PortMappings = ports(-1, 80, "") }, "port_mappings[0].host_port"},
		"no container port":      {func(c *cri.PodSandboxConfig) { c.PortMappings = ports(80, 0, "") }, "port_mappings[0].container_port"},
		"bad host IP":            {func(c *cri.PodSandboxConfig) { c.PortMappings = ports(80, 80, "1.2.3") }, "port_mappings[0].host_ip"},
		"unknown protocol":       {func(c *cri.PodSandboxConfig) { c.PortMappings = ports(80, 80, ""); c.PortMappings[0].Protocol = 7 }, "protocol"},
		"host port twice":        {func(c *cri.PodSandboxConfig) { c.PortMappings = append(ports(80, 80, ""), ports(80, 80, "")...) }, ""},
		"host port to two":       {func(c *cri.PodSandboxConfig) { c.PortMappings = append(ports(80, 80, ""), ports(80, 81, "")...) }, "host port 80/tcp"},
		"one of all host IPs": {func(c *cri.PodSandboxConfig) {
			c.PortMappings = append(ports(80, 80, ""), ports(80, 81, "10.0.0.1")...)
		}, ""},
		"all host IPs twice": {func(c *cri.PodSandboxConfig) {
			c.PortMappings = append(ports(80, 80, ""), ports(80, 81, "0.0.0.0")...)
		}, "host port 80/tcp"},
		"one host IP in two forms": {func(c *cri.PodSandboxConfig) {
			c.PortMappings = append(ports(80, 80, "10.0.0.1"), ports(80, 81, "::ffff:10.0.0.1")...)
		}, "host port 80/tcp"},
		"all IPv4 and all IPv6": {func(c *cri.PodSandboxConfig) {
			c.PortMappings = append(ports(80, 80, "::"), ports(80, 81, "0.0.0.0")...)
		}, ""},
		"two host IPs": {func(c *cri.PodSandboxConfig) {
			c.PortMappings = append(ports(80, 80, "10.0.0.2"), ports(80, 81, "10.0.0.1")...)
		}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := podConfig("a")
			tt.change(c)
			err := m.validate(c, "runc")
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an invalid argument with %q", err, tt.want)
			}
		})
	}
}

func ports(host, container int32, ip string) []*cri.PortMapping {
	return []*cri.PortMapping{{HostPort: host, ContainerPort: container, HostIp: ip}}
}

func TestCgroupOfPod(t *testing.T) {
	const id = "0123456789abcdef"
	for _, tt := range []struct {
		driver               CgroupDriver
		configured, asked    string
		wantParent, wantPath string
	}{
		{Cgroupfs, "/criserver", "", "/criserver/pod-" + id, "/criserver/pod-" + id},
		{Cgroupfs, "/criserver", "/kubepods/burstable/pod1", "/kubepods/burstable/pod1", "/kubepods/burstable/pod1"},
		{Systemd, "criserver.slice", "", "criserver-pod" + id + ".slice", "/criserver.slice/criserver-pod" + id + ".slice"},
		{Systemd, "criserver.slice", "kubepods-burstable-pod1_2.slice", "kubepods-burstable-pod1_2.slice", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice"},
	} {
		cfg := Config{CgroupDriver: tt.driver, CgroupParent: tt.configured}
		if got := cfg.cgroupParent(id, tt.asked); got != tt.wantParent || cgroupPath(got) != tt.wantPath {
			t.Errorf("%s %q: got parent %q at %q", tt.driver, tt.asked, got, cgroupPath(got))
		}
	}
}

func TestResolvConf(t *testing.T) {
	got, err := resolvConf(&types.DNS{
		Nameservers: []string{"10.96.0.10", "fd00::10"}, Search: []string{"a.svc", "b"}, Options: []string{"ndots:5", "edns0"},
	})
	const want = "search a.svc b\nnameserver 10.96.0.10\nnameserver fd00::10\noptions ndots:5 edns0\n"
	if err != nil || string(got) != want {
		t.Errorf("got %q, %v", got, err)
	}
	got, err = resolvConf(&types.DNS{Nameservers: []string{"", "1.1.1.1"}, Search: []string{"."}})
	if err != nil || string(got) != "search .\nnameserver 1.1.1.1\n" {
		t.Errorf("with an empty server: %q, %v", got, err)
	}
	host, err := readHostFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := resolvConf(nil); err != nil || string(got) != string(host) {
		t.Errorf("without any: %q, %v", got, err)
	}
	if got, err := resolvConf(&types.DNS{}); err != nil || len(got) != 0 {
		t.Errorf("with an empty one: %q, %v", got, err)
	}
}

func TestHosts(t *testing.T) {
	ips := []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")}
	for name, want := range map[string]string{
		"a":           "10.0.0.2\ta\nfd00::2\ta\n",
		"a.b.example": "10.0.0.2\ta.b.example\ta\nfd00::2\ta.b.example\ta\n",
		"a.ns.svc.":   "10.0.0.2\ta.ns.svc\ta.ns.svc.\ta\nfd00::2\ta.ns.svc\ta.ns.svc.\ta\n",
		"a.":          "10.0.0.2\ta\ta.\nfd00::2\ta\ta.\n",
		".":           "10.0.0.2\t.\nfd00::2\t.\n",
	} {
		if got := string(hosts(ips, name)); got != localHosts+want {
			t.Errorf("%q: %q", name, got)
		}
	}
}

func TestPortMappings(t *testing.T) {
	c := podConfig("a")
	c.PortMappings = []*cri.PortMapping{
		{HostPort: 0, ContainerPort: 1},
		{HostPort: 80, ContainerPort: 8080},
		{HostPort: 80, ContainerPort: 8080},
		{HostPort: 81, ContainerPort: 8080, HostIp: "0.0.0.0"},
		{HostPort: 80, ContainerPort: 8080, Protocol: cri.Protocol_SCTP, HostIp: "::1"},
	}
	got := mustJSON(t, portMappings(c))
	const want = `[{"hostPort":80,"containerPort":8080,"protocol":"sctp","hostIP":"::1"},` +
		`{"hostPort":80,"containerPort":8080,"protocol":"tcp"},{"hostPort":81,"containerPort":8080,"protocol":"tcp","hostIP":"0.0.0.0"}]`
	if got != want {
		t.Errorf("got %s", got)
	}
}

func TestRecordSurvivesItsFile(t *testing.T) {
	m := unitManager(t, nil)
	m.boot = "boot"
	b := &build{m: m, spec: mustParse(t, m, hostPod("a")), rec: &record{ID: strings.Repeat("12", 32), Handler: "runc"}}
	if err := m.prepare(); err != nil {
		t.Fatal(err)
	}
	if err := b.begin(); err != nil {
		t.Fatal(err)
	}
	got, config, err := m.dirs.read(b.rec.ID)
	if err != nil || !proto.Equal(config, b.spec.Config) {
		t.Fatalf("%v, %v", config, err)
	}
	if a, b := mustJSON(t, got), mustJSON(t, b.rec); a != b {
		t.Errorf("read %s, wrote %s", a, b)
	}
	b.rec.Version = recordVersion + 1
	if err := m.dirs.write(b.rec); err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.dirs.read(b.rec.ID); err == nil {
		t.Error("a record of a version to come was read")
	}
}

func TestQuantity(t *testing.T) {
	for in, want := range map[string]uint64{"1000": 1000, "10M": 10e6, "1.5k": 1500, "2Ki": 2048, "1G": 1e9, "0": 0, "1e3": 1000, "1.5E+6": 15e5, "20000e-1": 2000, "1E": 1e18, "+1k": 1000} {
		if got, ok := quantity(in); !ok || got != want {
			t.Errorf("%q: %d, %t", in, got, ok)
		}
	}
	for _, in := range []string{"", "M", "10m", "1e", "e3", "1e3k", "1e-100", "1E99", "-1", "1MM", "1.2.3", "10 M", "999999999999P", "0x10", "1/2"} {
		if got, ok := quantity(in); ok {
			t.Errorf("%q: %d", in, got)
		}
	}
	c := podConfig("a")
	if b, err := bandwidth(c); b != nil || err != nil {
		t.Errorf("without any: %v, %v", b, err)
	}
	c.Annotations = map[string]string{egressBandwidth: "1M"}
	if b, err := bandwidth(c); err != nil || b.EgressRate != 1e6 || b.EgressBurst != maxBurst || b.IngressBurst != 0 {
		t.Errorf("%+v, %v", b, err)
	}
	c.Annotations[ingressBandwidth] = "much"
	if _, err := bandwidth(c); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
}
