package podspec

import (
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/sandbox/namespace"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestSysctls(t *testing.T) {
	const accepted, refused = true, false
	for _, tt := range []struct {
		name, value      string
		hostNet, hostIPC bool
		want             bool
		path             string
	}{
		{"net.ipv4.ip_forward", "1", false, false, accepted, "net/ipv4/ip_forward"},
		{"net/ipv4/conf/eth0.100/forwarding", "1", false, false, accepted, "net/ipv4/conf/eth0.100/forwarding"},
		{"net.ipv4.conf.eth0/100.forwarding", "1", false, false, accepted, "net/ipv4/conf/eth0.100/forwarding"},
		{"net.ipv4.ip_local_port_range", "1024 65535", false, false, accepted, "net/ipv4/ip_local_port_range"},
		{"kernel.shm_rmid_forced", "1", false, false, accepted, "kernel/shm_rmid_forced"},
		{"kernel.sem", "1 2 3 4", false, false, accepted, "kernel/sem"},
		{"fs.mqueue.msg_max", "10", false, false, accepted, "fs/mqueue/msg_max"},
		{"net.ipv4.ip_forward", "1", true, false, refused, ""},
		{"kernel.sem", "1", false, true, refused, ""},
		{"fs.mqueue.msg_max", "10", false, true, refused, ""},
		{"kernel.core_pattern", "|/bin/x", false, false, refused, ""},
		{"kernel.core_pattern", "x", false, false, refused, ""},
		{"kernel.sem2", "1", false, false, refused, ""},
		{"vm.swappiness", "1", false, false, refused, ""},
		// CVE-2022-0811 and similar requests.
		{"kernel.shm_rmid_forced", "1+kernel.core_pattern=|/x", false, false, refused, ""},
		{"kernel.shm_rmid_forced+kernel.core_pattern", "1", false, false, refused, ""},
		{"kernel.shm_rmid_forced", "1\nx", false, false, refused, ""},
		{"net/../kernel/core_pattern", "x", false, false, refused, ""},
		{"net./.kernel.core_pattern", "x", false, false, refused, ""},
		{"net.//.//.kernel", "x", false, false, refused, ""},
		{"kernel/shm/../core_pattern", "x", false, false, refused, ""},
		{"kernel.shm*", "x", false, false, refused, ""},
		{"/proc/sys/kernel/sem", "x", false, false, refused, ""},
		{"net", "x", false, false, refused, ""},
		{"net.", "x", false, false, refused, ""},
		{"", "x", false, false, refused, ""},
		{"net.ipv4.ip_forward", "", false, false, refused, ""},
		{"net.ipv4.ip_local_port_range", " \t", false, false, refused, ""},
		{"net.a", strings.Repeat("1", 5000), false, false, refused, ""},
	} {
		c := podConfig()
		c.Linux.Sysctls = map[string]string{tt.name: tt.value}
		if tt.hostNet {
			namespaceOptions(c).Network = cri.NamespaceMode_NODE
		}
		if tt.hostIPC {
			namespaceOptions(c).Ipc = cri.NamespaceMode_NODE
		}
		spec, err := Parse(c, "", testNode())
		if tt.want == refused {
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "linux.sysctls") {
				t.Errorf("%q=%q: got error %v", tt.name, tt.value, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q=%q: got error %v", tt.name, tt.value, err)
			continue
		}
		got := append(spec.Sysctls, spec.InterfaceSysctls...)
		if len(got) != 1 || got[0] != (namespace.Sysctl{Path: tt.path, Value: tt.value}) {
			t.Errorf("%q=%q: got %+v", tt.name, tt.value, got)
		}
	}
}

func TestAllowedSysctls(t *testing.T) {
	c := podConfig()
	c.Linux.Sysctls = map[string]string{"vm.swappiness": "1"}
	node := testNode()
	node.AllowedSysctls = []string{"vm.*"}
	if _, err := Parse(c, "", node); !errdefs.IsInvalidArgument(err) {
		t.Errorf("allowed sysctl of the host: got error %v", err)
	}
	c.Linux.Sysctls = map[string]string{"net.ipv4.ip_forward": "1"}
	if _, err := Parse(c, "", node); !errdefs.IsInvalidArgument(err) {
		t.Errorf("sysctl that is not allowed: got error %v", err)
	}
	// The operator may have changed the allowed sysctls since the request was stored.
	if _, err := ParseStored(c, ""); err != nil {
		t.Errorf("stored request: got error %v", err)
	}
}

func TestInterfaceSysctls(t *testing.T) {
	for name, want := range map[string]bool{
		"net.ipv4.conf.eth0.forwarding":    true,
		"net.ipv6.neigh.net1.gc_stale":     true,
		"net.ipv4.conf.all.forwarding":     false,
		"net.ipv4.conf.default.forwarding": false,
		"net.ipv4.conf.lo.forwarding":      false,
		"net.ipv4.ip_forward":              false,
		"net.core.somaxconn":               false,
	} {
		c := podConfig()
		c.Linux.Sysctls = map[string]string{name: "1"}
		if spec := mustParse(t, c); (len(spec.InterfaceSysctls) == 1) != want || (len(spec.Sysctls) == 1) == want {
			t.Errorf("%s: got %+v and %+v", name, spec.Sysctls, spec.InterfaceSysctls)
		}
	}
}

// TestSysctlsWithIDs checks that the groups in a request are groups of the pod's user namespace, and that the spec has
// the groups of the host.
func TestSysctlsWithIDs(t *testing.T) {
	for _, tt := range []struct{ value, want string }{
		{"0 65535", "327680 393215"},
		{"0 0", "327680 327680"},
		{"1000\t0x7d0", "328680 329680"},
		{"0 2147483647", "327680 393215"},
		{"1 0", "1 0"},
		{"65536 70000", ""},
		{"5", ""},
		{"0 1 2", ""},
		{"0 -1", ""},
		{"0 a", ""},
		{"0 1_000", ""},
		{"0 4294967296", ""},
	} {
		c := userPod()
		c.Linux.Sysctls = map[string]string{"net.ipv4.ping_group_range": tt.value}
		spec, err := Parse(c, "", testNode())
		switch {
		case tt.want == "" && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "net.ipv4.ping_group_range")):
			t.Errorf("%q: got %+v, %v", tt.value, spec, err)
		case tt.want != "" && (err != nil || len(spec.Sysctls) != 1 || spec.Sysctls[0].Value != tt.want):
			t.Errorf("%q: got %+v, %v; want %q", tt.value, spec, err, tt.want)
		}
	}
	c := podConfig()
	c.Linux.Sysctls = map[string]string{"net.ipv4.ping_group_range": "1000 2000"}
	if got := mustParse(t, c).Sysctls; len(got) != 1 || got[0].Value != "1000 2000" {
		t.Errorf("without a user namespace: got %+v", got)
	}
	c = userPod()
	namespaceOptions(c).UsernsOptions.Gids = nil
	c.Linux.Sysctls = map[string]string{"net.ipv4.ping_group_range": "0 1"}
	if _, err := ParseStored(c, ""); err == nil || !strings.Contains(err.Error(), "userns_options.gids") {
		t.Errorf("stored request without a mapping: got error %v", err)
	}
}

func FuzzSysctlPath(f *testing.F) {
	for _, s := range []string{"net.ipv4.conf.eth0/1.x", "a/b", "../x", "a..b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		path, ok := sysctlPath(name)
		if ok && (path == "" || hasDotDot(path) || path[0] == '/' || strings.Contains(path, "//") || strings.ContainsAny(path, "\x00\n+ ")) {
			t.Errorf("%q has the path %q", name, path)
		}
	})
}

// TestDefaultSysctls checks that the sysctls of the operator apply unless the request has another
// value or the pod shares the namespace with the host, and that they need not be allowed.
func TestDefaultSysctls(t *testing.T) {
	node := testNode()
	node.AllowedSysctls = []string{"net.ipv4.ip_forward"}
	node.DefaultSysctls = map[string]string{"net.ipv4.ip_forward": "0", "net/ipv4/conf/eth0/forwarding": "1", "kernel.sem": "1 2 3 4"}
	for name, tt := range map[string]struct {
		change func(*cri.PodSandboxConfig)
		want   []namespace.Sysctl
	}{
		"no request": {func(*cri.PodSandboxConfig) {}, []namespace.Sysctl{
			{Path: "kernel/sem", Value: "1 2 3 4"}, {Path: "net/ipv4/ip_forward", Value: "0"}, {Path: "net/ipv4/conf/eth0/forwarding", Value: "1"},
		}},
		"another value": {func(c *cri.PodSandboxConfig) { c.Linux.Sysctls = map[string]string{"net/ipv4/ip_forward": "1"} }, []namespace.Sysctl{
			{Path: "net/ipv4/ip_forward", Value: "1"}, {Path: "kernel/sem", Value: "1 2 3 4"}, {Path: "net/ipv4/conf/eth0/forwarding", Value: "1"},
		}},
		"host network": {func(c *cri.PodSandboxConfig) { namespaceOptions(c).Network = cri.NamespaceMode_NODE }, []namespace.Sysctl{
			{Path: "kernel/sem", Value: "1 2 3 4"},
		}},
		"host IPC": {func(c *cri.PodSandboxConfig) { namespaceOptions(c).Ipc = cri.NamespaceMode_NODE }, []namespace.Sysctl{
			{Path: "net/ipv4/ip_forward", Value: "0"}, {Path: "net/ipv4/conf/eth0/forwarding", Value: "1"},
		}},
	} {
		c := podConfig()
		tt.change(c)
		spec, err := Parse(c, "", node)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := append(spec.Sysctls, spec.InterfaceSysctls...); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
		if stored, err := ParseStored(c, ""); err != nil || len(stored.Sysctls)+len(stored.InterfaceSysctls) > 1 {
			t.Errorf("%s: stored request: got %+v, %v, want only the requested sysctls", name, stored, err)
		}
	}
}
