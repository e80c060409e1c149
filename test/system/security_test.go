package system

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// capsOf returns a capability set of a container's process as /proc has it.
func (n *node) capsOf(t *testing.T, c, set string) string {
	t.Helper()
	for line := range strings.Lines(n.exec(t, c, "cat", "/proc/1/status")) {
		if name, value, _ := strings.Cut(line, ":"); name == set {
			return strings.TrimLeft(strings.TrimSpace(value), "0")
		}
	}
	t.Fatalf("no %s in /proc/1/status", set)
	return ""
}

func TestCapabilitySets(t *testing.T) {
	n := newNode(t, "caps", 83)
	p := n.runPod(t, podConfig("caps"))
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
		c := n.create(t, p, config)
		n.startContainer(t, c)
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

func TestSeccompProfiles(t *testing.T) {
	n := newNode(t, "seccomp", 84)
	dir := hostDir(t, map[string]string{
		"no-chmod.json": `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod","fchmodat","fchmodat2"],"action":"SCMP_ACT_ERRNO"}]}`,
		"bad.json":      `{"defaultAction":`,
	})
	p := n.runPod(t, podConfig("seccomp"))
	local := func(path string) *cri.SecurityProfile {
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: path}
	}
	for name, tc := range map[string]struct {
		sc   *cri.LinuxContainerSecurityContext
		want string // Seccomp of /proc/self/status, and whether chmod works
	}{
		"unasked":           {&cri.LinuxContainerSecurityContext{}, "0 ok"},
		"default":           {&cri.LinuxContainerSecurityContext{Seccomp: &cri.SecurityProfile{}}, "2 ok"},
		"unconfined":        {&cri.LinuxContainerSecurityContext{Seccomp: &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}}, "0 ok"},
		"local":             {&cri.LinuxContainerSecurityContext{Seccomp: local(dir + "/no-chmod.json")}, "2 no"},
		"legacy-default":    {&cri.LinuxContainerSecurityContext{SeccompProfilePath: "runtime/default"}, "2 ok"},
		"legacy-unconfined": {&cri.LinuxContainerSecurityContext{SeccompProfilePath: "unconfined"}, "0 ok"},
		"legacy-local":      {&cri.LinuxContainerSecurityContext{SeccompProfilePath: "localhost/" + dir + "/no-chmod.json"}, "2 no"},
		"new-one-wins":      {&cri.LinuxContainerSecurityContext{Seccomp: &cri.SecurityProfile{}, SeccompProfilePath: "localhost/" + dir + "/no-chmod.json"}, "2 ok"},
	} {
		if got := n.seccompOf(t, p, name, tc.sc); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
	for name, tc := range map[string]struct {
		sc   *cri.LinuxContainerSecurityContext
		says string
	}{
		"missing":        {&cri.LinuxContainerSecurityContext{Seccomp: local(dir + "/none.json")}, "none.json"},
		"not-json":       {&cri.LinuxContainerSecurityContext{Seccomp: local(dir + "/bad.json")}, "bad.json"},
		"directory":      {&cri.LinuxContainerSecurityContext{Seccomp: local(dir)}, "regular file"},
		"relative":       {&cri.LinuxContainerSecurityContext{Seccomp: local("no-chmod.json")}, "absolute"},
		"no-path":        {&cri.LinuxContainerSecurityContext{Seccomp: local("")}, "absolute"},
		"path-of-no-use": {&cri.LinuxContainerSecurityContext{Seccomp: &cri.SecurityProfile{LocalhostRef: dir + "/no-chmod.json"}}, "Localhost"},
		"type":           {&cri.LinuxContainerSecurityContext{Seccomp: &cri.SecurityProfile{ProfileType: 7}}, "profile type 7"},
		"legacy":         {&cri.LinuxContainerSecurityContext{SeccompProfilePath: "whatever"}, "seccomp_profile_path"},
	} {
		config := containerConfig(p, name, busybox, "true")
		config.Linux.SecurityContext = tc.sc
		if msg := n.refused(t, p, config, codes.InvalidArgument); !strings.Contains(msg, tc.says) || !strings.Contains(msg, "security_context.seccomp") {
			t.Errorf("%s: %s", name, msg)
		}
	}
}

// seccompOf runs a container and returns its seccomp mode and whether chmod
// works in it.
func (n *node) seccompOf(t *testing.T, p *pod, name string, sc *cri.LinuxContainerSecurityContext) string {
	t.Helper()
	config := containerConfig(p, name, busybox, "sleep", "1000")
	sc.NamespaceOptions = config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	config.Linux.SecurityContext = sc
	c := n.create(t, p, config)
	n.startContainer(t, c)
	// That of an exec, which has to be the same.
	return n.exec(t, c, "sh", "-c", "echo $(sed -n 's/^Seccomp:[[:space:]]*//p' /proc/self/status) $(chmod 700 /tmp 2>/dev/null && echo ok || echo no)")
}

func TestConfiguredSeccomp(t *testing.T) {
	dir := hostDir(t, map[string]string{
		"default.json": `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod","fchmodat","fchmodat2"],"action":"SCMP_ACT_ERRNO"}]}`,
		"priv.json":    `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["swapoff"],"action":"SCMP_ACT_ERRNO"}]}`,
	})
	n := makeNode("seccompcfg")
	n.Config = fmt.Sprintf("[container]\nseccomp_profile = %q\nprivileged_seccomp_profile = %q\nseccomp_unasked = true\n", dir+"/default.json", dir+"/priv.json")
	n.Network = n.Bridge("csseccfg", "10.85.0.0/16", "fd00:55::/64")
	n.start(t)
	pc := podConfig("seccompcfg")
	pc.Linux.SecurityContext.Privileged = true
	p := n.runPod(t, pc)
	for name, tc := range map[string]struct {
		sc   *cri.LinuxContainerSecurityContext
		want string
	}{
		"unasked":    {&cri.LinuxContainerSecurityContext{}, "2 no"},
		"default":    {&cri.LinuxContainerSecurityContext{Seccomp: &cri.SecurityProfile{}}, "2 no"},
		"unconfined": {&cri.LinuxContainerSecurityContext{Seccomp: &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}}, "0 ok"},
		"privileged": {&cri.LinuxContainerSecurityContext{Privileged: true}, "2 ok"},
	} {
		if got := n.seccompOf(t, p, name, tc.sc); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
	if err := os.WriteFile(dir+"/default.json", []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := n.Restart(t.Context()); err == nil || !strings.Contains(err.Error(), "container.seccomp_profile") {
		t.Errorf("a daemon with a broken profile: %v", err)
	}
	if err := os.WriteFile(dir+"/default.json", []byte(`{"defaultAction":"SCMP_ACT_ALLOW"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
}

// TestConfinementThatIsMissing asks for what this machine does not have: it must
// be refused, not left out. Where it does have it, that is another test's matter.
func TestConfinementThatIsMissing(t *testing.T) {
	n := newNode(t, "missing", 86)
	p := n.runPod(t, podConfig("missing"))
	appArmor, seLinux := exists("/sys/kernel/security/apparmor/profiles"), exists("/sys/fs/selinux/enforce")
	local := &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: "cs-not-loaded"}
	for name, tc := range map[string]struct {
		skip   bool
		change func(*cri.LinuxContainerSecurityContext)
		says   string
	}{
		"apparmor":        {false, func(sc *cri.LinuxContainerSecurityContext) { sc.Apparmor = local }, `"cs-not-loaded"`},
		"apparmor-legacy": {false, func(sc *cri.LinuxContainerSecurityContext) { sc.ApparmorProfile = "localhost/cs-not-loaded" }, `"cs-not-loaded"`},
		"selinux": {seLinux, func(sc *cri.LinuxContainerSecurityContext) {
			sc.SelinuxOptions = &cri.SELinuxOption{Type: "container_t"}
		}, "selinux_options"},
	} {
		if tc.skip {
			continue
		}
		config := containerConfig(p, name, busybox, "true")
		tc.change(config.Linux.SecurityContext)
		if msg := n.refused(t, p, config, codes.FailedPrecondition); !strings.Contains(msg, tc.says) {
			t.Errorf("%s: %s", name, msg)
		}
	}
	t.Logf("AppArmor %v, SELinux %v", appArmor, seLinux)
	for name, change := range map[string]func(*cri.LinuxContainerSecurityContext){
		"default": func(sc *cri.LinuxContainerSecurityContext) { sc.Apparmor = &cri.SecurityProfile{} },
		"unconfined": func(sc *cri.LinuxContainerSecurityContext) {
			sc.Apparmor = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}
		},
		"legacy":     func(sc *cri.LinuxContainerSecurityContext) { sc.ApparmorProfile = "runtime/default" },
		"no-options": func(sc *cri.LinuxContainerSecurityContext) { sc.SelinuxOptions = &cri.SELinuxOption{} },
	} {
		config := containerConfig(p, name, busybox, "sleep", "1000")
		change(config.Linux.SecurityContext)
		n.startContainer(t, n.create(t, p, config))
	}
	for name, sc := range map[string]*cri.LinuxContainerSecurityContext{
		"ref-of-no-use": {Apparmor: &cri.SecurityProfile{LocalhostRef: "p"}},
		"no-ref":        {Apparmor: &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost}},
		"type":          {Apparmor: &cri.SecurityProfile{ProfileType: 5}},
		"legacy-form":   {ApparmorProfile: "what"},
	} {
		config := containerConfig(p, "bad-"+name, busybox, "true")
		config.Linux.SecurityContext = sc
		if msg := n.refused(t, p, config, codes.InvalidArgument); !strings.Contains(msg, "apparmor") {
			t.Errorf("%s: %s", name, msg)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestIdentity(t *testing.T) {
	n := newNode(t, "ident", 87)
	n.pull(t, "gcr.io/k8s-staging-cri-tools/test-image-predefined-group:latest")
	p := n.runPod(t, podConfig("ident"))
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
		c := n.create(t, p, config)
		n.startContainer(t, c)
		if got := n.exec(t, c, "sh", "-c", "echo $(id -u) $(id -g) $(id -G | tr ' ' '\\n' | sort -n)"); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
		u := n.status(t, c).GetUser().GetLinux()
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
	n := newNode(t, "paths", 88)
	p := n.runPod(t, podConfig("paths"))
	config := containerConfig(p, "c", busybox, "sleep", "1000")
	sc := config.Linux.SecurityContext
	sc.MaskedPaths, sc.ReadonlyPaths = []string{"/proc/version", "/proc/fs", "/not/there"}, []string{"/proc/sys"}
	sc.ReadonlyRootfs, sc.NoNewPrivs = true, true
	c := n.create(t, p, config)
	n.startContainer(t, c)
	for cmd, want := range map[string]string{
		"wc -c </proc/version": "0",
		"ls /proc/fs":          "",
		"(echo 1 >/proc/sys/net/ipv4/ip_forward) 2>/dev/null || echo no": "no",
		"touch /x 2>/dev/null || echo no":                                "no",
		"echo >/etc/hosts 2>/dev/null || echo no":                        "no",
		"touch /dev/shm/x && echo ok":                                    "ok",
		"sed -n 's/^NoNewPrivs:[[:space:]]*//p' /proc/1/status":          "1",
		"test -n \"$(head -n 1 /proc/interrupts)\" && echo seen":         "seen", // the list is the request's, not ours
	} {
		if got := n.exec(t, c, "sh", "-c", cmd); got != want {
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
			t.Errorf("%s: %s", field, msg)
		}
	}
}

// TestPodSecurityContext is about the fields of the pod sandbox, in which no
// process runs.
func TestPodSecurityContext(t *testing.T) {
	n := newNode(t, "podsec", 89)
	number := func(v int64) *cri.Int64Value { return &cri.Int64Value{Value: v} }
	pc := podConfig("podsec")
	sc := pc.Linux.SecurityContext
	sc.RunAsUser, sc.RunAsGroup, sc.ReadonlyRootfs, sc.SupplementalGroups = number(1000), number(1000), true, []int64{5}
	sc.Seccomp, sc.Apparmor = &cri.SecurityProfile{}, &cri.SecurityProfile{}
	p := n.runPod(t, pc)
	config := containerConfig(p, "c", busybox, "sleep", "1000")
	c := n.create(t, p, config)
	n.startContainer(t, c)
	if got := n.exec(t, c, "sh", "-c", "id -u; touch /x && echo ok"); got != "0\nok" {
		t.Errorf("a container takes over what is the sandbox's: %q", got)
	}
	config = containerConfig(p, "privileged", busybox, "true")
	config.Linux.SecurityContext.Privileged = true
	if msg := n.refused(t, p, config, codes.InvalidArgument); !strings.Contains(msg, "privileged") {
		t.Error(msg)
	}
	for name, tc := range map[string]struct {
		change func(*cri.LinuxSandboxSecurityContext)
		code   codes.Code
		says   string
	}{
		"group-alone": {func(sc *cri.LinuxSandboxSecurityContext) { sc.RunAsGroup = number(1) }, codes.InvalidArgument, "run_as_group"},
		"uid":         {func(sc *cri.LinuxSandboxSecurityContext) { sc.RunAsUser = number(-1) }, codes.InvalidArgument, "run_as_user"},
		"gid":         {func(sc *cri.LinuxSandboxSecurityContext) { sc.RunAsUser, sc.RunAsGroup = number(1), number(1<<32) }, codes.InvalidArgument, "run_as_group"},
		"groups":      {func(sc *cri.LinuxSandboxSecurityContext) { sc.SupplementalGroups = []int64{1, -1} }, codes.InvalidArgument, "supplemental_groups[1]"},
		"policy":      {func(sc *cri.LinuxSandboxSecurityContext) { sc.SupplementalGroupsPolicy = 9 }, codes.InvalidArgument, "supplemental_groups_policy"},
		"seccomp":     {func(sc *cri.LinuxSandboxSecurityContext) { sc.Seccomp = &cri.SecurityProfile{ProfileType: 9} }, codes.InvalidArgument, "seccomp"},
		"seccomp-ref": {func(sc *cri.LinuxSandboxSecurityContext) {
			sc.Seccomp = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: "p"}
		}, codes.InvalidArgument, "seccomp"},
		"legacy": {func(sc *cri.LinuxSandboxSecurityContext) { sc.Seccomp, sc.SeccompProfilePath = nil, "p" }, codes.InvalidArgument, "seccomp_profile_path"},
		"apparmor": {func(sc *cri.LinuxSandboxSecurityContext) {
			sc.Apparmor = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost}
		}, codes.InvalidArgument, "apparmor"},
		"apparmor-off": {func(sc *cri.LinuxSandboxSecurityContext) {
			sc.Apparmor = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: "cs-not-loaded"}
		}, codes.FailedPrecondition, "apparmor"},
		"selinux-form": {func(sc *cri.LinuxSandboxSecurityContext) { sc.SelinuxOptions = &cri.SELinuxOption{Type: "a b"} }, codes.InvalidArgument, "selinux_options"},
		"selinux-off":  {func(sc *cri.LinuxSandboxSecurityContext) { sc.SelinuxOptions = &cri.SELinuxOption{Type: "container_t"} }, codes.FailedPrecondition, "selinux_options"},
	} {
		if name == "selinux-off" && exists("/sys/fs/selinux/enforce") || name == "apparmor-off" && exists("/sys/kernel/security/apparmor/profiles") {
			continue
		}
		pc := podConfig("bad-" + name)
		tc.change(pc.Linux.SecurityContext)
		r, err := n.rt.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: pc})
		if status.Code(err) != tc.code || !strings.Contains(fmt.Sprint(err), "linux.security_context."+tc.says) {
			t.Errorf("%s: %s, %v", name, r.GetPodSandboxId(), err)
		}
	}
}
