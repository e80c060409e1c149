package system

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// operatorConfig is a configuration with defaults of the operator: hooks, variables, sysctls and
// a handler with a base spec. Its files are in dir.
func operatorConfig(t *testing.T, dir string) string {
	t.Helper()
	for path, content := range map[string]string{
		"hooks.d/note.json": fmt.Sprintf(`{"version": "1.0.0", "stages": ["prestart"], "when": {"annotations": {"^example.com/hook$": "^on$"}},
			"hook": {"path": "/bin/sh", "args": ["sh", "-c", "cat >%s/state.json"]}}`, dir),
		"base.json": `{"ociVersion": "1.0.2", "process": {"env": ["HANDLER=special"]},
			"mounts": [{"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]}]}`,
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf(`
[container]
hooks_dirs = [%q, %q]
default_env = ["OPERATOR=yes", "SHARED=operator"]

[pod]
default_sysctls = ["net.ipv4.ip_unprivileged_port_start=80", "kernel.shm_rmid_forced=1"]

[runtimes.special]
path = %q
base_spec = %q
allowed_annotations = ["example.com/*"]
writable_cgroups = true
`, filepath.Join(dir, "none"), filepath.Join(dir, "hooks.d"), specialRuntime(t), filepath.Join(dir, "base.json"))
}

// specialRuntime returns the path of runc.
func specialRuntime(t *testing.T) string {
	t.Helper()
	built := filepath.Join(suite.bin, "runc")
	if _, err := os.Stat(built); err == nil {
		return built
	}
	path, err := exec.LookPath("runc")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestOperatorDefaults checks in containers of the daemon the hooks, variables, sysctls,
// annotations and base specs that the configuration defines.
func TestOperatorDefaults(t *testing.T) {
	dir := t.TempDir()
	n := newNodeWith(t, "operator", 212, operatorConfig(t, dir))
	config := podConfig("operator")
	config.Annotations = map[string]string{"example.com/hook": "on"}
	config.Linux.Sysctls = map[string]string{"kernel.shm_rmid_forced": "0"}
	p := n.runPodFor(t, "special", config)
	c := containerConfig(p, "c", busybox, "sleep", "1000")
	c.Envs = []*cri.KeyValue{{Key: "SHARED", Value: []byte("request")}}
	id := n.CreateContainer(t, p, c)
	n.StartContainer(t, id)
	for cmd, want := range map[string]string{
		"echo $OPERATOR $SHARED $HANDLER":                   "yes request special",
		"cat /proc/sys/net/ipv4/ip_unprivileged_port_start": "80",
		"cat /proc/sys/kernel/shm_rmid_forced":              "0",
		"grep -c ' /scratch tmpfs' /proc/mounts":            "1",
	} {
		if got := n.Exec(t, id, "sh", "-c", cmd); got != want {
			t.Errorf("%s: got %q, want %q", cmd, got, want)
		}
	}
	state, err := os.ReadFile(filepath.Join(dir, "state.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"example.com/hook":"on"`, `"io.kubernetes.cri.sandbox-name":"operator"`, `"io.kubernetes.cri.container-name":"c"`, id} {
		if !strings.Contains(string(state), want) {
			t.Errorf("state of the hook: got %s, want %s", state, want)
		}
	}
	// The default handler has no base spec, and a pod without the annotation gets no hook.
	if err := os.Remove(filepath.Join(dir, "state.json")); err != nil {
		t.Fatal(err)
	}
	q := n.RunPod(t, podConfig("other"))
	other := n.run(t, q, "c", "sleep", "1000")
	if got := n.Exec(t, other, "sh", "-c", "echo $SHARED $HANDLER; cat /proc/sys/kernel/shm_rmid_forced"); got != "operator\n1" {
		t.Errorf("container of the default handler: got %q, want the defaults of the operator", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "state.json")); err == nil {
		t.Error("the hook ran for a pod without the annotation")
	}
}

// TestWritableCgroupsOfHandler checks that a container of the handler can make cgroups below its
// own, if the host has cgroup v2.
func TestWritableCgroupsOfHandler(t *testing.T) {
	n := newNodeWith(t, "cgwrite", 213, operatorConfig(t, t.TempDir()))
	want := "made"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		want = "refused"
	}
	p := n.runPodFor(t, "special", podConfig("cgwrite"))
	id := n.run(t, p, "c", "sleep", "1000")
	// With cgroup v1, /sys/fs/cgroup has a directory for each hierarchy.
	const script = "cd /sys/fs/cgroup; test -d memory && cd memory; mkdir own 2>/dev/null && echo made && rmdir own || echo refused"
	if got := n.Exec(t, id, "sh", "-c", script); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	q := n.RunPod(t, podConfig("other"))
	if got := n.Exec(t, n.run(t, q, "c", "sleep", "1000"), "sh", "-c", script); got != "refused" {
		t.Errorf("container of the default handler: got %q, want refused", got)
	}
}

// TestPromptInLogs checks that the reader of logs of the kubelet, which crictl uses, shows a
// prompt while the container waits, and later the complete line.
func TestPromptInLogs(t *testing.T) {
	n := newNode(t, "prompt", 214)
	p := n.RunPod(t, podConfig("prompt"))
	id := n.run(t, p, "c", "sh", "-c", "printf 'name: '; while ! [ -e /go ]; do sleep 0.05; done; echo alice; printf 'done'; sleep 1000")
	logs := func() string {
		cmd := exec.CommandContext(t.Context(), filepath.Join(suite.bin, "crictl"), "--runtime-endpoint", "unix://"+n.Socket(),
			"--timeout", harness.Patience(10*time.Second).String(), "logs", id) // the default of 2 s is too short for a slow machine
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("crictl logs: %v", err)
		}
		return string(out)
	}
	// The file shows when the monitor has written the line. crictl shows how readers join it.
	written := func(tag, text string) func() bool {
		return func() bool { return strings.Contains(logLinesNow(p, "c"), " stdout "+tag+" "+text+"\n") }
	}
	waitFor(t, "the prompt", written("P", "name: "))
	if got := logs(); got != "name: " {
		t.Errorf("while the container waits: got %q, want the prompt", got)
	}
	n.Exec(t, id, "touch", "/go")
	waitFor(t, "the rest of the line", written("F", "alice"))
	waitFor(t, "the next line", written("P", "done"))
	if got := logs(); got != "name: alice\ndone" {
		t.Errorf("after the answer: got %q, want the joined line", got)
	}
}

// TestTimezone checks that containers have the time zone of the configuration.
func TestTimezone(t *testing.T) {
	const zone = "Asia/Tokyo"
	if _, err := os.Stat(filepath.Join("/usr/share/zoneinfo", zone)); err != nil {
		t.Skipf("the host has no time zones, which the package tzdata contains: %v", err)
	}
	n := newNodeWith(t, "timezone", 232, fmt.Sprintf("[container]\ntimezone = %q\n", zone))
	p := n.RunPod(t, podConfig("timezone"))
	if got := n.Exec(t, n.run(t, p, "c", "sleep", "1000"), "date", "+%Z"); got != "JST" {
		t.Errorf("time zone of the container: got %q, want JST", got)
	}
	drop := n.writeFile(t, "config.toml.d/zone.toml", "[container]\ntimezone = \"Asia/Atlantis\"\n")
	if code, _, stderr := n.command(t, "reload"); code != 1 || !strings.Contains(stderr, "container.timezone: stat /usr/share/zoneinfo/Asia/Atlantis: no such file") {
		t.Errorf("reload with a time zone that does not exist: got exit code %d, %q, want 1 and the key with the file", code, stderr)
	}
	if err := os.Remove(drop); err != nil {
		t.Fatal(err)
	}
}

// TestIPPreference checks that the primary address of a pod is in the family of the configuration, and that a reload
// affects new pods only.
func TestIPPreference(t *testing.T) {
	n := makeNode("ippref")
	n.CNI = "ip_preference = \"ipv6\""
	n.Network = n.Bridge("csippref", "10.233.0.0/16", "fd00:e9::/64")
	n.start(t)
	six := n.RunPod(t, podConfig("six"))
	n.writeFile(t, "config.toml.d/family.toml", "[cni]\nip_preference = \"ipv4\"\n")
	if code, _, stderr := n.command(t, "reload"); code != 0 {
		t.Fatalf("reload: got exit code %d, %s", code, stderr)
	}
	four := n.RunPod(t, podConfig("four"))
	for p, want := range map[*pod][]string{six: {"fd00:e9:", "10.233."}, four: {"10.233.", "fd00:e9:"}} {
		got := n.podIPs(t, p.ID)
		if len(got) != 2 || !strings.HasPrefix(got[0], want[0]) || !strings.HasPrefix(got[1], want[1]) {
			t.Errorf("addresses of %s: got %q, want the prefixes %q", p.Config.GetMetadata().GetName(), got, want)
		}
	}
}
