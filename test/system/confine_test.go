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

// TestMissingConfinement requests AppArmor profiles that are not loaded, which is
// an error, and SELinux labels, which are ignored on a host without SELinux.
func TestMissingConfinement(t *testing.T) {
	n := newNode(t, "missing", 216)
	p := n.RunPod(t, podConfig("missing"))
	appArmor, seLinux := exists("/sys/kernel/security/apparmor/profiles"), exists("/sys/fs/selinux/enforce")
	local := &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: "cs-not-loaded"}
	for name, tc := range map[string]struct {
		change func(*cri.LinuxContainerSecurityContext)
		says   string
	}{
		"apparmor":        {func(sc *cri.LinuxContainerSecurityContext) { sc.Apparmor = local }, `"cs-not-loaded"`},
		"apparmor-legacy": {func(sc *cri.LinuxContainerSecurityContext) { sc.ApparmorProfile = "localhost/cs-not-loaded" }, `"cs-not-loaded"`},
	} {
		config := containerConfig(p, name, busybox, "true")
		tc.change(config.Linux.SecurityContext)
		if msg := n.refused(t, p, config, codes.FailedPrecondition); !strings.Contains(msg, tc.says) {
			t.Errorf("%s: got error %s, want %q", name, msg, tc.says)
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
		n.StartContainer(t, n.CreateContainer(t, p, config))
	}
	for name, options := range map[string]*cri.SELinuxOption{
		"selinux": {User: "system_u", Role: "system_r", Type: "container_t", Level: "s0:c1,c2"}, "selinux-form": {Type: "a b"},
	} {
		if seLinux {
			continue
		}
		pc := podConfig(name)
		pc.Linux.SecurityContext.SelinuxOptions = options
		p := n.RunPod(t, pc)
		config := containerConfig(p, name, busybox, "sleep", "1000")
		config.Linux.SecurityContext.SelinuxOptions = options
		n.StartContainer(t, n.CreateContainer(t, p, config))
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
			t.Errorf("%s: got error %s, want one that names apparmor", name, msg)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestPodSecurityContext checks the security context of the pod, in which no process
// runs.
func TestPodSecurityContext(t *testing.T) {
	n := newNode(t, "podsec", 219)
	number := func(v int64) *cri.Int64Value { return &cri.Int64Value{Value: v} }
	pc := podConfig("podsec")
	sc := pc.Linux.SecurityContext
	sc.RunAsUser, sc.RunAsGroup, sc.ReadonlyRootfs, sc.SupplementalGroups = number(1000), number(1000), true, []int64{5}
	sc.Seccomp, sc.Apparmor = &cri.SecurityProfile{}, &cri.SecurityProfile{}
	p := n.RunPod(t, pc)
	config := containerConfig(p, "c", busybox, "sleep", "1000")
	c := n.CreateContainer(t, p, config)
	n.StartContainer(t, c)
	if got := n.Exec(t, c, "sh", "-c", "id -u; touch /x && echo ok"); got != "0\nok" {
		t.Errorf("user of the container and write to /x: got %q, want 0 and ok, not the security context of the pod", got)
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
	} {
		if name == "selinux-form" && !exists("/sys/fs/selinux/enforce") || name == "apparmor-off" && exists("/sys/kernel/security/apparmor/profiles") {
			continue
		}
		pc := podConfig("bad-" + name)
		tc.change(pc.Linux.SecurityContext)
		r, err := n.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: pc})
		if status.Code(err) != tc.code || !strings.Contains(fmt.Sprint(err), "linux.security_context."+tc.says) {
			t.Errorf("%s: got pod %s and error %v, want %s with %q", name, r.GetPodSandboxId(), err, tc.code, tc.says)
		}
	}
}
