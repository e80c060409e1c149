package system

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestSeccompProfiles(t *testing.T) {
	n := newNode(t, "seccomp", 214)
	dir := hostDir(t, map[string]string{
		"no-chmod.json": `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod","fchmodat","fchmodat2"],"action":"SCMP_ACT_ERRNO"}]}`,
		"bad.json":      `{"defaultAction":`,
	})
	p := n.RunPod(t, podConfig("seccomp"))
	local := func(path string) *cri.SecurityProfile {
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: path}
	}
	for name, tc := range map[string]struct {
		sc   *cri.LinuxContainerSecurityContext
		want string // Seccomp in /proc/self/status, and whether chmod works
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
			t.Errorf("%s: got error %q, want security_context.seccomp and %q", name, msg, tc.says)
		}
	}
}

// seccompOf runs a container and returns its seccomp mode, and whether chmod works.
func (n *node) seccompOf(t *testing.T, p *pod, name string, sc *cri.LinuxContainerSecurityContext) string {
	t.Helper()
	config := containerConfig(p, name, busybox, "sleep", "1000")
	sc.NamespaceOptions = config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	config.Linux.SecurityContext = sc
	c := n.CreateContainer(t, p, config)
	n.StartContainer(t, c)
	// The profile must also apply to exec.
	return n.Exec(t, c, "sh", "-c", "echo $(sed -n 's/^Seccomp:[[:space:]]*//p' /proc/self/status) $(chmod 700 /tmp 2>/dev/null && echo ok || echo no)")
}

func TestConfiguredSeccomp(t *testing.T) {
	dir := hostDir(t, map[string]string{
		"default.json": `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod","fchmodat","fchmodat2"],"action":"SCMP_ACT_ERRNO"}]}`,
		"open.json":    `{"defaultAction":"SCMP_ACT_ALLOW"}`,
		"priv.json":    `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["swapoff"],"action":"SCMP_ACT_ERRNO"}]}`,
	})
	n := makeNode("seccompcfg")
	n.Config = fmt.Sprintf("[container]\nseccomp_profile = %q\nprivileged_seccomp_profile = %q\nseccomp_unasked = true\n", dir+"/default.json", dir+"/priv.json") +
		fmt.Sprintf("[runtimes.open]\npath = %q\nseccomp_profile = %q\n", specialRuntime(t), dir+"/open.json")
	n.Network = n.Bridge("csseccfg", "10.215.0.0/16", "fd00:d7::/64")
	n.start(t)
	pc := podConfig("seccompcfg")
	pc.Linux.SecurityContext.Privileged = true
	p := n.RunPod(t, pc)
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
	// The profile of a runtime handler replaces the profile of the configuration.
	open := n.runPodFor(t, "open", podConfig("open"))
	if got := n.seccompOf(t, open, "handler", &cri.LinuxContainerSecurityContext{Seccomp: &cri.SecurityProfile{}}); got != "2 ok" {
		t.Errorf("handler with a profile: %q, want %q", got, "2 ok")
	}
	if err := os.WriteFile(dir+"/default.json", []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := n.Stop(); err != nil {
		t.Fatalf("stop the daemon: %v", err)
	}
	if err := n.Restart(t.Context()); err == nil || !strings.Contains(err.Error(), "container.seccomp_profile") {
		t.Errorf("daemon with an invalid profile: got error %v, want container.seccomp_profile", err)
	}
	if err := os.WriteFile(dir+"/default.json", []byte(`{"defaultAction":"SCMP_ACT_ALLOW"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
}
