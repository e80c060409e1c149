package system

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// command runs a command of criserver for the node, in the network namespace of the daemon, and
// returns its exit code.
func (n *node) command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(suite.bin, "criserver"), append(args, "--config", filepath.Join(n.Dir, "config.toml"))...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := harness.In(n.NetNS, cmd.Start); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%q: %v", args, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errOut.String()
}

// TestCommandsOfRunningDaemon checks the commands that query and change a running daemon.
func TestCommandsOfRunningDaemon(t *testing.T) {
	n := newNode(t, "commands", 186)
	info, err := os.Stat(filepath.Join(n.Dir, "run", "admin.sock"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket of the administration API: got mode %v, %v, want 0600", info.Mode(), err)
	}
	p := n.RunPod(t, podConfig("commands"))
	n.run(t, p, "c", "sleep", "1000")
	code, stdout, stderr := n.command(t, "status", "-o", "json")
	var s struct {
		Pid             int
		Runtime         struct{ Ready bool }
		RuntimeHandlers []struct {
			Name, Version string
			Default       bool
		}
		Network struct {
			Condition     struct{ Ready bool }
			Name, File    string
			CniStatusTime string
		}
		Storage struct {
			Root, FileSystem                               string
			Images, Layers                                 int
			ImageBytes, CapacityBytes, FreeBytes, RunBytes string
		}
		Pods       struct{ Ready, NotReady int }
		Containers struct{ Running, Exited int }
		Cgroups    struct{ Driver string }
	}
	if err := json.Unmarshal([]byte(stdout), &s); err != nil || code != 0 {
		t.Fatalf("status: got exit code %d, %v, output %s%s", code, err, stdout, stderr)
	}
	if s.Pid != n.Pid() || !s.Runtime.Ready || !s.Network.Condition.Ready || s.Network.Name == "" || !strings.HasPrefix(s.Network.File, "/") || s.Network.CniStatusTime == "" {
		t.Errorf("status: got %s, want the PID %d, a ready runtime and a ready network with a file", stdout, n.Pid())
	}
	if s.Storage.Root != filepath.Join(n.Dir, "root") || s.Storage.Images < 1 || s.Storage.Layers < 1 || s.Storage.FileSystem == "" || s.Storage.ImageBytes == "0" || s.Storage.CapacityBytes == "0" {
		t.Errorf("status: got storage %+v, want an image with layers", s.Storage)
	}
	if s.Pods.Ready != 1 || s.Containers.Running != 1 || s.Cgroups.Driver == "" {
		t.Errorf("status: got %d pods, %d containers, driver %q; want one each", s.Pods.Ready, s.Containers.Running, s.Cgroups.Driver)
	}
	withVersion := 0
	for _, h := range s.RuntimeHandlers {
		if h.Default && h.Version != "" {
			withVersion++
		}
	}
	if withVersion != 1 {
		t.Errorf("status: got handlers %+v, want one default handler with a version", s.RuntimeHandlers)
	}
	if code, stdout, _ := n.command(t, "status"); code != 0 || !strings.Contains(stdout, "1 running") {
		t.Errorf("status: got exit code %d, output %s", code, stdout)
	}
	if code, stdout, stderr := n.command(t, "version"); code != 0 || !strings.Contains(stdout, "\ndaemon ") {
		t.Errorf("version: got exit code %d, output %s%s, want the version of the daemon", code, stdout, stderr)
	}
	if code, stdout, stderr := n.command(t, "debug", "goroutines"); code != 0 || !strings.Contains(stdout, "internal/daemon") {
		t.Errorf("debug goroutines: got exit code %d, error output %s, want stacks of the daemon", code, stderr)
	}
	n.checkLogLevel(t)
	code, stdout, stderr = n.command(t, "config", "diff")
	if code != 0 || !strings.Contains(stdout, "run_dir") || strings.Contains(stdout, "differs") {
		t.Errorf("config diff: got exit code %d, output %s%s, want run_dir, and no difference from the daemon", code, stdout, stderr)
	}
}

// checkLogLevel changes the log level, and checks that queries are then logged.
func (n *node) checkLogLevel(t *testing.T) {
	t.Helper()
	_, before, _ := n.command(t, "log-level")
	if code, _, stderr := n.command(t, "log-level", "debug"); code != 0 {
		t.Errorf("log-level debug: got exit code %d, error output %s", code, stderr)
	}
	if _, err := n.RuntimeService.Version(t.Context(), &cri.VersionRequest{}); err != nil {
		t.Error(err)
	}
	if tail := n.LogTail(); !strings.Contains(tail, "rpc=Version") {
		t.Errorf("the log contains no query at the level debug:\n%s", tail)
	}
	if _, stdout, _ := n.command(t, "log-level"); stdout != "debug\n" {
		t.Errorf("log-level: got %q, want debug", stdout)
	}
	if code, _, stderr := n.command(t, "log-level", strings.TrimSpace(before)); code != 0 {
		t.Errorf("log-level %s: got exit code %d, error output %s", before, code, stderr)
	}
}

// TestAdminSocketIsOptional checks that a daemon serves the CRI although it cannot create the
// socket of the administration API.
func TestAdminSocketIsOptional(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	n := newNodeWith(t, "noadmin", 187, "admin_socket = \""+filepath.Join(dir, "s")+"\"\n")
	log, err := os.ReadFile(n.LogPath())
	if err != nil || !strings.Contains(string(log), "the administration API is not available") {
		t.Errorf("the log does not contain the reason (%v)", err)
	}
	if code, _, stderr := n.command(t, "status"); code != 1 || !strings.Contains(stderr, "the daemon does not run, or uses another socket") {
		t.Errorf("status: got exit code %d, error output %s", code, stderr)
	}
}

// monitorCgroup returns the path of the cgroup of the monitors.
func (n *node) monitorCgroup(t *testing.T) string {
	t.Helper()
	st, err := n.RuntimeService.Status(t.Context(), &cri.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	return infoField(t, st.GetInfo()["config"], "monitorCgroup")
}

// cgroupDirs returns the directories of a cgroup in all hierarchies.
func cgroupDirs(path string) []string {
	v1, _ := filepath.Glob("/sys/fs/cgroup/*" + path)
	v2, _ := filepath.Glob("/sys/fs/cgroup" + path)
	return append(v1, v2...)
}

// TestWipe removes all pods, containers and images while the daemon is stopped.
func TestWipe(t *testing.T) {
	n := newNode(t, "wipe", 188)
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	// By default all daemons in one unit of systemd share a cgroup for their monitors. wipe would keep it, because tests
	// that run at the same time use it. So this daemon has its own. When the run ends, it removes all cgroups whose names
	// begin with the name of its directory.
	cgroup := "/" + filepath.Base(suite.dir) + "-monitors-of-wipe"
	n.writeFile(t, "config.toml.d/50-monitor.toml", "[monitor]\ncgroup = \""+cgroup+"\"\n")
	n.restart(t)
	monitors := n.monitorCgroup(t)
	p := n.RunPod(t, podConfig("wipe"))
	n.run(t, p, "running", "sleep", "1000")
	if code, _, stderr := n.command(t, "wipe", "--yes"); code != 1 || !strings.Contains(stderr, "in use by another daemon") {
		t.Errorf("wipe while the daemon runs: got exit code %d, error output %s", code, stderr)
	}
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := n.command(t, "wipe", "--yes", "--images"); code != 1 || !strings.Contains(stderr, "1 of 1 containers run") || !strings.Contains(stdout, p.ID) {
		t.Errorf("wipe while a container runs: got exit code %d, output %s%s, want a refusal", code, stdout, stderr)
	}
	code, stdout, stderr := n.command(t, "wipe", "--dry-run", "--images", "-o", "json")
	var plan struct{ Pods, Containers, Images []struct{ ID, State string } }
	if err := json.Unmarshal([]byte(stdout), &plan); err != nil || code != 0 || len(plan.Pods) != 1 || len(plan.Containers) != 1 || plan.Containers[0].State != "running" || len(plan.Images) == 0 {
		t.Errorf("wipe --dry-run: got exit code %d, %v, output %s%s, want the pod, its container and images", code, err, stdout, stderr)
	}
	if code, _, stderr := n.command(t, "wipe", "--force"); code != 1 || !strings.Contains(stderr, "not confirmed") {
		t.Errorf("wipe without confirmation: got exit code %d, error output %s", code, stderr)
	}
	n.restart(t)
	if pods, containers := n.running(t); pods != 1 || containers != 1 {
		t.Errorf("after commands that must change nothing: got %d pods and %d containers, want one each", pods, containers)
	}
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	if len(cgroupDirs(monitors)) == 0 {
		t.Errorf("the cgroup %s does not exist before wipe", monitors)
	}
	// As in another unit of systemd, wipe does not have the cgroup of the monitors in its settings.
	other := "/" + filepath.Base(n.CgroupParent) + "-other"
	if code, stdout, stderr := n.command(t, "wipe", "--force", "--yes", "--images", "--monitor.cgroup", other); code != 0 {
		t.Errorf("wipe --force: got exit code %d, output %s%s", code, stdout, stderr)
	}
	if left := append(cgroupDirs(monitors), cgroupDirs(other)...); len(left) > 0 {
		t.Errorf("cgroups of monitors after wipe: %v, want none", left)
	}
	for _, dir := range []string{"run/pods", "run/ns", "run/containers", "root/rootfs", "root/images", "root/layers"} {
		if entries, err := os.ReadDir(filepath.Join(n.Dir, dir)); err != nil || len(entries) > 0 {
			t.Errorf("%s after wipe: got %v, %v, want an empty directory", dir, entries, err)
		}
	}
	var tables []byte
	err := harness.In(n.NetNS, func() (err error) {
		tables, err = exec.CommandContext(t.Context(), "nft", "list", "tables").CombinedOutput()
		return err
	})
	if err != nil || strings.Contains(string(tables), "criserver_") {
		t.Errorf("nftables after wipe: got %v, %s, want no table of the daemon", err, tables)
	}
	n.restart(t)
	if pods, containers := n.running(t); pods != 0 || containers != 0 {
		t.Errorf("after wipe: got %d pods and %d containers, want none", pods, containers)
	}
	n.Pull(t, busybox)
	n.run(t, n.RunPod(t, podConfig("after")), "c", "true")
}
