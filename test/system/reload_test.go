package system

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// dropIn replaces the drop-in file of the node's configuration.
func (n *node) dropIn(t *testing.T, text string) {
	t.Helper()
	dir := filepath.Join(n.Dir, "config.toml.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "50.toml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// reload runs `criserver reload` and returns its output.
func (n *node) reload() (string, error) {
	b, err := exec.Command(filepath.Join(suite.bin, "criserver"), "reload", "--config", filepath.Join(n.Dir, "config.toml")).CombinedOutput()
	return string(b), err
}

func (n *node) mustReload(t *testing.T) string {
	t.Helper()
	out, err := n.reload()
	if err != nil {
		t.Fatalf("reload: got error %v, output %s", err, out)
	}
	return out
}

// hangUp sends SIGHUP, and waits until the log contains a text more often than before.
func (n *node) hangUp(t *testing.T, text string) {
	t.Helper()
	count := func() int {
		b, err := os.ReadFile(n.LogPath())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(b), text)
	}
	before := count()
	if err := syscall.Kill(n.Pid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	waitFor(t, fmt.Sprintf("%q in the log", text), func() bool { return count() > before })
}

// handlerNames returns the runtime handlers that the daemon reports.
func (n *node) handlerNames(t *testing.T) map[string]bool {
	t.Helper()
	r, err := n.RuntimeService.Status(t.Context(), &cri.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, h := range r.GetRuntimeHandlers() {
		names[h.GetName()] = true
	}
	return names
}

// TestReloadSettings changes settings of a running daemon. New containers have the new settings,
// and running containers keep theirs.
func TestReloadSettings(t *testing.T) {
	n := newNode(t, "reload", 110)
	p := n.RunPod(t, podConfig("reload"))
	old := n.run(t, p, "old", "sleep", "1000")
	n.dropIn(t, "root = \"/elsewhere\"\n[container]\ndefault_ulimits = [\"nofile=1111:2222\"]\n[pod]\nallowed_sysctls = [\"kernel.shm_rmid_forced\"]\n")
	out := n.mustReload(t)
	for _, want := range []string{"container.default_ulimits", "applied", "root ", "needs a restart"} {
		if !strings.Contains(out, want) {
			t.Errorf("output of reload: got %s, want %q in it", out, want)
		}
	}
	limits := func(id string) string { return n.Exec(t, id, "sh", "-c", "ulimit -S -n; ulimit -H -n") }
	if got := limits(n.run(t, p, "new", "sleep", "1000")); got != "1111\n2222" {
		t.Errorf("limits of a new container: got %q, want 1111 and 2222", got)
	}
	if got := limits(old); got == "1111\n2222" {
		t.Errorf("limits of a container from before the reload: got %q, want the old ones", got)
	}
	refused := podConfig("refused")
	refused.Linux.Sysctls = map[string]string{"kernel.shm_rmid_forced": "1", "kernel.msgmax": "8192"}
	if _, err := n.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: refused}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("pod with a sysctl that is no longer allowed: got error %v, want InvalidArgument", err)
	}

	// An invalid file changes nothing, not even the valid keys.
	n.dropIn(t, "[container]\ndefault_ulimits = [\"nofile=3333:4444\"]\nseccomp_profile = \"/no/such/profile\"\n")
	if out, err := n.reload(); err == nil || !strings.Contains(out, "container.seccomp_profile: /no/such/profile") {
		t.Errorf("reload with a missing profile: got error %v, output %s, want the key and the file", err, out)
	}
	n.dropIn(t, "log_level = \"loud\"\n")
	n.hangUp(t, "50.toml: log_level: must be one of")
	if got := limits(n.run(t, p, "after", "sleep", "1000")); got != "1111\n2222" {
		t.Errorf("limits after an invalid configuration: got %q, want those of the last valid one", got)
	}
	n.dropIn(t, "")
	n.hangUp(t, "configuration reloaded")
	if got := limits(n.run(t, p, "default", "sleep", "1000")); got == "1111\n2222" {
		t.Errorf("limits after a reload of the first configuration: got %q, want the default", got)
	}
}

// TestReloadHandlers adds, changes and removes a runtime handler. Containers of the handler keep
// working, and existing pods of the handler can have new containers.
func TestReloadHandlers(t *testing.T) {
	n := newNode(t, "rehandler", 112)
	runc := filepath.Join(suite.bin, "runc")
	// Only pods with a broken handler fail. The next reload tries its runtime again.
	broken := filepath.Join(n.Dir, "broken-runtime")
	n.dropIn(t, fmt.Sprintf("log_level = \"info\"\n[runtimes.extra]\npath = %q\n", broken))
	for range 2 {
		if out, err := n.reload(); err == nil || !strings.Contains(out, "runtimes.extra.path") || !strings.Contains(out, "the handler is not available") {
			t.Errorf("reload with a missing runtime: got error %v, output %s, want the key", err, out)
		}
	}
	if !n.handlerNames(t)["extra"] {
		t.Error("the reload has not added the handler")
	}
	if p := n.runPodFor(t, "", podConfig("other")); n.Exec(t, n.run(t, p, "other", "sleep", "1000"), "echo", "works") != "works" {
		t.Error("a pod with another handler does not work")
	}
	if err := os.Symlink(runc, broken); err != nil {
		t.Fatal(err)
	}
	n.mustReload(t)
	n.dropIn(t, fmt.Sprintf("[runtimes.extra]\npath = %q\ntype = \"runsc\"\n", runc))
	n.mustReload(t) // no pod has the handler
	n.dropIn(t, fmt.Sprintf("[runtimes.extra]\npath = %q\n", runc))
	n.mustReload(t)
	if !n.handlerNames(t)["extra"] {
		t.Errorf("handlers after the reload: got %v, want extra", n.handlerNames(t))
	}
	p := n.runPodFor(t, "extra", podConfig("extra"))
	first := n.run(t, p, "first", "sleep", "1000")
	n.dropIn(t, fmt.Sprintf("[runtimes.extra]\npath = %q\ntype = \"runsc\"\n", runc))
	if out, err := n.reload(); err == nil || !strings.Contains(out, "runtimes.extra.type") {
		t.Errorf("reload with another type: got error %v, output %s, want the key", err, out)
	}

	// Another state directory: the runtime knows the first container only in the old one.
	n.dropIn(t, fmt.Sprintf("[runtimes.extra]\npath = %q\nroot = %q\n", runc, filepath.Join(n.Dir, "run", "other-root")))
	n.mustReload(t)
	second := n.run(t, p, "second", "sleep", "1000")
	n.dropIn(t, "")
	n.mustReload(t)
	third := n.run(t, p, "third", "sleep", "1000")
	for name, id := range map[string]string{"first": first, "second": second, "third": third} {
		if got := n.Exec(t, id, "echo", name); got != name {
			t.Errorf("exec in %s: got %q", name, got)
		}
	}
	if _, err := n.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: podConfig("late"), RuntimeHandler: "extra"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("pod with a removed handler: got error %v, want InvalidArgument", err)
	}
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	fourth := n.run(t, p, "fourth", "sleep", "1000") // the daemon knows the handler only from the other containers
	for _, id := range []string{first, second, third, fourth} {
		n.Exec(t, id, "true")
		if _, err := n.RuntimeService.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: id}); err != nil {
			t.Errorf("stop: got error %v", err)
		}
		if _, err := n.RuntimeService.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: id}); err != nil {
			t.Errorf("remove: got error %v", err)
		}
	}
	// The daemon keeps the state directories of handlers. The containers are not in them any more.
	for _, dir := range []string{"runtimes/extra", "other-root"} {
		if err := os.Remove(filepath.Join(n.Dir, "run", dir)); err != nil {
			t.Errorf("state directory of the handler: got error %v, want an empty directory", err)
		}
	}
}

// TestStacks sends SIGUSR1. The daemon writes the stacks to a file and logs its path.
func TestStacks(t *testing.T) {
	n := newNode(t, "stacks", 114)
	if err := syscall.Kill(n.Pid(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	pattern := filepath.Join(n.Dir, "run", "stacks", "*.txt")
	waitFor(t, "a file with stacks", func() bool { found, _ := filepath.Glob(pattern); return len(found) == 1 })
	found, _ := filepath.Glob(pattern)
	b, err := os.ReadFile(found[0])
	if err != nil || !strings.Contains(string(b), "goroutine ") || !strings.Contains(string(b), "daemon.(*Daemon).Run") {
		t.Errorf("stacks: got %.200s (error %v), want those of all goroutines", b, err)
	}
	waitFor(t, "the path in the log", func() bool {
		log, err := os.ReadFile(n.LogPath())
		return err == nil && strings.Contains(string(log), found[0])
	})
	if err := os.RemoveAll(filepath.Dir(found[0])); err != nil {
		t.Fatal(err)
	}
}

// TestSecondSIGTERM stops the daemon while a command runs, for which the daemon waits. A second
// SIGTERM ends the daemon at once, by the signal.
func TestSecondSIGTERM(t *testing.T) {
	n := newNode(t, "second", 117)
	p := n.RunPod(t, podConfig("second"))
	id := n.run(t, p, "c", "sh", "-c", "trap 'echo signal' TERM; echo ready; while :; do sleep 0.1; done")
	n.logHas(t, p, "c", "ready")
	stopped := make(chan error, 1)
	go func() {
		_, err := n.RuntimeService.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: id, Timeout: harness.PatienceSeconds(60)})
		stopped <- err
	}()
	n.logHas(t, p, "c", "signal")
	if err := syscall.Kill(n.Pid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// The daemon handles the first signal before the second is sent when it no longer accepts connections.
	waitFor(t, "the end of the listener", func() bool {
		_, err := os.Stat(n.Socket())
		return err != nil
	})
	if err := syscall.Kill(n.Pid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	state, err := n.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); !ok || !ws.Signaled() || ws.Signal() != syscall.SIGTERM {
		t.Errorf("end of the daemon: got %s, want SIGTERM", state)
	}
	if err := <-stopped; err == nil {
		t.Error("the call in progress succeeded")
	}
	n.restart(t)
	n.Exec(t, id, "true") // the container still runs
}
