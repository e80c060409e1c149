package system

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// capsOf returns a capability set of a container's process from /proc.
func (n *node) capsOf(t *testing.T, c, set string) string {
	t.Helper()
	for line := range strings.Lines(n.Exec(t, c, "cat", "/proc/1/status")) {
		if name, value, _ := strings.Cut(line, ":"); name == set {
			return strings.TrimLeft(strings.TrimSpace(value), "0")
		}
	}
	t.Fatalf("no %s in /proc/1/status", set)
	return ""
}

func TestCapabilitySets(t *testing.T) {
	n := newNode(t, "caps", 213)
	p := n.RunPod(t, podConfig("caps"))
	const netBind, kill = 1 << 10, 1 << 5
	for name, tc := range map[string]struct {
		caps             *cri.Capability
		uid              int64
		bounding, useful uint64 // useful: effective and permitted
		ambient          uint64 // and inheritable
	}{
		"none":           {&cri.Capability{DropCapabilities: []string{"ALL"}}, 0, 0, 0, 0},
		"one":            {&cri.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"kill"}}, 0, kill, kill, 0},
		"of a user":      {&cri.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"KILL"}}, 1000, kill, 0, 0},
		"ambient":        {&cri.Capability{DropCapabilities: []string{"ALL"}, AddAmbientCapabilities: []string{"NET_BIND_SERVICE"}}, 1000, netBind, netBind, netBind},
		"ambient, added": {&cri.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"KILL"}, AddAmbientCapabilities: []string{"NET_BIND_SERVICE"}}, 1000, netBind | kill, netBind, netBind},
	} {
		config := containerConfig(p, strings.NewReplacer(" ", "-", ",", "").Replace(name), busybox, "sleep", "1000")
		config.Linux.SecurityContext.Capabilities = tc.caps
		config.Linux.SecurityContext.RunAsUser = &cri.Int64Value{Value: tc.uid}
		c := n.CreateContainer(t, p, config)
		n.StartContainer(t, c)
		for set, want := range map[string]uint64{
			"CapBnd": tc.bounding, "CapEff": tc.useful, "CapPrm": tc.useful, "CapAmb": tc.ambient, "CapInh": tc.ambient,
		} {
			hex := fmt.Sprintf("%x", want)
			if want == 0 {
				hex = ""
			}
			if got := n.capsOf(t, c, set); got != hex {
				t.Errorf("%s: %s is %q, want %q", name, set, got, hex)
			}
		}
	}
}

func TestIdentity(t *testing.T) {
	n := newNode(t, "ident", 217)
	n.Pull(t, "gcr.io/k8s-staging-cri-tools/test-image-predefined-group:latest")
	p := n.RunPod(t, podConfig("ident"))
	number := func(v int64) *cri.Int64Value { return &cri.Int64Value{Value: v} }
	for name, tc := range map[string]struct {
		sc     *cri.LinuxContainerSecurityContext
		want   string // uid, gid, all groups
		status string
	}{
		"image":      {&cri.LinuxContainerSecurityContext{}, "1000 1000 1000 50000", "1000:1000 [1000 50000]"},
		"merge":      {&cri.LinuxContainerSecurityContext{SupplementalGroups: []int64{60000}}, "1000 1000 1000 50000 60000", "1000:1000 [1000 50000 60000]"},
		"strict":     {&cri.LinuxContainerSecurityContext{SupplementalGroups: []int64{60000}, SupplementalGroupsPolicy: cri.SupplementalGroupsPolicy_Strict}, "1000 1000 1000 60000", "1000:1000 [1000 60000]"},
		"user":       {&cri.LinuxContainerSecurityContext{RunAsUser: number(7)}, "7 0 0", "7:0 [0]"},
		"user-group": {&cri.LinuxContainerSecurityContext{RunAsUser: number(1000), RunAsGroup: number(8)}, "1000 8 8 50000", "1000:8 [8 50000]"},
		"name":       {&cri.LinuxContainerSecurityContext{RunAsUsername: "default-user"}, "1000 1000 1000 50000", "1000:1000 [1000 50000]"},
		"name-group": {&cri.LinuxContainerSecurityContext{RunAsUsername: "default-user", RunAsGroup: number(9)}, "1000 9 9 50000", "1000:9 [9 50000]"},
	} {
		config := containerConfig(p, name, "gcr.io/k8s-staging-cri-tools/test-image-predefined-group:latest", "sleep", "1000")
		tc.sc.NamespaceOptions = config.GetLinux().GetSecurityContext().GetNamespaceOptions()
		config.Linux.SecurityContext = tc.sc
		c := n.CreateContainer(t, p, config)
		n.StartContainer(t, c)
		if got := n.Exec(t, c, "sh", "-c", "echo $(id -u) $(id -g) $(id -G | tr ' ' '\\n' | sort -n)"); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
		u := n.ContainerStatus(t, c).GetUser().GetLinux()
		if got := fmt.Sprintf("%d:%d %v", u.GetUid(), u.GetGid(), u.GetSupplementalGroups()); got != tc.status {
			t.Errorf("%s: the status says %s, want %s", name, got, tc.status)
		}
	}
	for name, sc := range map[string]*cri.LinuxContainerSecurityContext{
		"user-and-name": {RunAsUser: number(1), RunAsUsername: "root"},
		"group-alone":   {RunAsGroup: number(1)},
		"negative":      {RunAsUser: number(-1)},
		"wraps":         {RunAsUser: number(1 << 32)},
		"no-such-name":  {RunAsUsername: "nobody-has-it"},
		"bad-group":     {SupplementalGroups: []int64{-1}},
		"policy":        {SupplementalGroupsPolicy: 5},
	} {
		config := containerConfig(p, "bad-"+name, busybox, "true")
		config.Linux.SecurityContext = sc
		n.refused(t, p, config, codes.InvalidArgument)
	}
}

func TestPathsOfTheRequest(t *testing.T) {
	n := newNode(t, "paths", 218)
	p := n.RunPod(t, podConfig("paths"))
	config := containerConfig(p, "c", busybox, "sleep", "1000")
	sc := config.Linux.SecurityContext
	sc.MaskedPaths, sc.ReadonlyPaths = []string{"/proc/version", "/proc/fs", "/not/there"}, []string{"/proc/sys"}
	sc.ReadonlyRootfs, sc.NoNewPrivs = true, true
	c := n.CreateContainer(t, p, config)
	n.StartContainer(t, c)
	for cmd, want := range map[string]string{
		"wc -c </proc/version": "0",
		"ls /proc/fs":          "",
		"(echo 1 >/proc/sys/net/ipv4/ip_forward) 2>/dev/null || echo no": "no",
		"touch /x 2>/dev/null || echo no":                                "no",
		"echo >/etc/hosts 2>/dev/null || echo no":                        "no",
		"touch /dev/shm/x && echo ok":                                    "ok",
		"sed -n 's/^NoNewPrivs:[[:space:]]*//p' /proc/1/status":          "1",
		"test -n \"$(head -n 1 /proc/interrupts)\" && echo seen":         "seen", // only the paths of the request are masked
	} {
		if got := n.Exec(t, c, "sh", "-c", cmd); got != want {
			t.Errorf("%s: %q, want %q", cmd, got, want)
		}
	}
	for field, change := range map[string]func(*cri.LinuxContainerSecurityContext){
		"masked_paths":   func(sc *cri.LinuxContainerSecurityContext) { sc.MaskedPaths = []string{"/proc/../etc"} },
		"readonly_paths": func(sc *cri.LinuxContainerSecurityContext) { sc.ReadonlyPaths = []string{"proc"} },
		"add_capabilities": func(sc *cri.LinuxContainerSecurityContext) {
			sc.Capabilities = &cri.Capability{AddCapabilities: []string{"FLY"}}
		},
		"drop_capabilities": func(sc *cri.LinuxContainerSecurityContext) {
			sc.Capabilities = &cri.Capability{DropCapabilities: []string{"CAP_"}}
		},
		"add_ambient_capabilities": func(sc *cri.LinuxContainerSecurityContext) {
			sc.Capabilities = &cri.Capability{AddAmbientCapabilities: []string{"x y"}}
		},
	} {
		config := containerConfig(p, "bad-"+strings.ReplaceAll(field, "_", "-"), busybox, "true")
		change(config.Linux.SecurityContext)
		if msg := n.refused(t, p, config, codes.InvalidArgument); !strings.Contains(msg, field) {
			t.Errorf("create with an invalid %s: got error %q, want the field", field, msg)
		}
	}
}
