package system

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestNRIEventOrder(t *testing.T) {
	n := newNode(t, "nriall", 90)
	plugin := n.startPlugin(t)
	p := n.RunPod(t, podConfig("all"))
	if line, want := plugin.await(t, "RunPodSandbox"), "RunPodSandbox "+p.ID+" all system uid-all 2 true"; line != want {
		t.Errorf("event of the pod: got %q, want %q", line, want)
	}
	id := n.run(t, p, "main", "sleep", "1000")
	update := &cri.UpdateContainerResourcesRequest{ContainerId: id, Linux: &cri.LinuxContainerResources{CpuShares: 500}}
	if _, err := n.RuntimeService.UpdateContainerResources(t.Context(), update); err != nil {
		t.Fatal(err)
	}
	if got := n.ContainerStatus(t, id).GetResources().GetLinux().GetCpuShares(); got != 555 {
		t.Errorf("CPU shares in the status after an update that the plugin changed: got %d, want 555", got)
	}
	if got := n.cgroupFile(t, id, "memory/memory.soft_limit_in_bytes", "memory.low"); got != strconv.Itoa(8<<20) {
		t.Errorf("memory reservation of the plugin: got %s, want %d", got, 8<<20)
	}
	exited := n.CreateContainer(t, p, containerConfig(p, "exited", busybox, "sh", "-c", "exit 3"))
	n.StartContainer(t, exited)
	plugin.await(t, "StopContainer "+exited) // the container exits without a stop
	if _, err := n.RuntimeService.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: exited}); err != nil {
		t.Fatal(err)
	}
	n.RemovePod(t, p.ID)
	if _, err := n.RuntimeService.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: p.ID}); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{
		p.ID:   "RunPodSandbox StopPodSandbox RemovePodSandbox",
		id:     "CreateContainer PostCreateContainer StartContainer PostStartContainer UpdateContainer PostUpdateContainer StopContainer RemoveContainer",
		exited: "CreateContainer PostCreateContainer StartContainer PostStartContainer StopContainer RemoveContainer",
	} {
		if got := strings.Join(plugin.events(t, id), " "); got != want {
			t.Errorf("events of %s: got\n%s\nwant\n%s", id, got, want)
		}
	}
	lines := strings.Join(plugin.lines(t), "\n")
	if strings.Index(lines, "StopContainer "+id) > strings.Index(lines, "StopPodSandbox "+p.ID) {
		t.Errorf("events: got\n%s\nwant StopContainer of the container before StopPodSandbox", lines)
	}
	for _, line := range []string{"StopContainer " + id + " CONTAINER_STOPPED", "RemoveContainer " + id + " main", "PostUpdateContainer " + id + " 555"} {
		if !strings.Contains(lines, line) {
			t.Errorf("events: got\n%s\nwant %q", lines, line)
		}
	}
}

func TestNRIAdjustsContainer(t *testing.T) {
	n := newNode(t, "nriadj", 91)
	plugin := n.startPlugin(t)
	mount := t.TempDir()
	if err := os.WriteFile(filepath.Join(mount, "file"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := n.RunPod(t, podConfig("adjusted"))
	c := containerConfig(p, "main", busybox, "sleep", "1000")
	c.Annotations = map[string]string{"ask/CreateContainer": "adjust", "mount": mount}
	c.Envs = []*cri.KeyValue{{Key: "UNWANTED", Value: []byte("1")}, {Key: "KEPT", Value: []byte("2")}}
	id := n.CreateContainer(t, p, c)
	if _, err := os.Stat(filepath.Join(mount, "hooked")); err != nil {
		t.Errorf("file of the OCI hook of the plugin: got error %v, want none", err)
	}
	n.StartContainer(t, id)
	for name, probe := range map[string]struct{ cmd, want string }{
		"env":            {"tr '\\0' '\\n' </proc/1/environ | grep -E 'ADDED|UNWANTED|KEPT' | sort", "ADDED=by a plugin\nKEPT=2"},
		"env of an exec": {"echo $ADDED", "by a plugin"},
		"mount":          {"cat /from/plugin/file; touch /from/plugin/x 2>/dev/null || echo ,ro", "hello,ro"},
		"rlimit":         {"ulimit -n; ulimit -Hn", "666\n777"},
		"device":         {"ls -l /dev/given | tr -s ' ' | cut -d' ' -f5-6; echo x >/dev/given && echo ok", "1, 3\nok"},
		"oom score":      {"cat /proc/1/oom_score_adj", "432"},
		"sysctl":         {"cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "77"},
	} {
		if got := n.Exec(t, id, "sh", "-c", probe.cmd); got != probe.want {
			t.Errorf("%s: got %q, want %q", name, got, probe.want)
		}
	}
	check := func(when string) {
		t.Helper()
		r := n.ContainerStatus(t, id).GetResources().GetLinux()
		if r.GetMemoryLimitInBytes() != 64<<20 || r.GetCpuShares() != 333 || r.GetOomScoreAdj() != 432 {
			t.Errorf("resources in the status %s: got %v, want those of the plugin", when, r)
		}
	}
	check("after the creation")
	if path := n.cgroupOf(t, id); !strings.HasSuffix(strings.TrimSuffix(path, ".scope"), "-moved") {
		t.Errorf("cgroup: got %s, want the suffix -moved of the plugin", path)
	}
	if got := n.cgroupFile(t, id, "memory/memory.limit_in_bytes", "memory.max"); got != strconv.Itoa(64<<20) {
		t.Errorf("memory limit in the cgroup: got %s, want %d", got, 64<<20)
	}
	if got := n.cgroupFile(t, id, "pids/pids.max", "pids.max"); got != "55" {
		t.Errorf("pids limit in the cgroup: got %s, want 55", got)
	}
	// After a restart of the daemon, the plugin connects again and is synchronized.
	n.Kill()
	if err := os.Truncate(plugin.log, 0); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	check("after a restart of the daemon")
	if line, want := plugin.await(t, "SyncContainer "+id), "SyncContainer "+id+" CONTAINER_RUNNING "+strconv.Itoa(64<<20); line != want {
		t.Errorf("synchronized container: got %q, want %q", line, want)
	}
	plugin.await(t, "SyncPod "+p.ID+" adjusted")
}

func TestNRIUpdatesOfAPod(t *testing.T) {
	n := newNode(t, "nripod", 93)
	plugin := n.startPlugin(t)
	p := n.RunPod(t, podConfig("limits"))
	update := func(shares int64) error {
		_, err := n.RuntimeService.UpdatePodSandboxResources(t.Context(), &cri.UpdatePodSandboxResourcesRequest{
			PodSandboxId: p.ID, Overhead: &cri.LinuxContainerResources{CpuShares: 20},
			Resources: &cri.LinuxContainerResources{CpuShares: shares, MemoryLimitInBytes: 5 << 20},
		})
		return err
	}
	if err := update(13); err == nil || !strings.Contains(err.Error(), "bad luck") {
		t.Errorf("update that the plugin answers with an error: got error %v, want the message of the plugin", err)
	}
	if err := update(14); err != nil {
		t.Errorf("second update: got error %v, want none", err)
	}
	if got := strings.Join(plugin.events(t, p.ID), " "); got != "RunPodSandbox UpdatePodSandbox UpdatePodSandbox PostUpdatePodSandbox" {
		t.Errorf("events: got %s, want two updates and one PostUpdatePodSandbox", got)
	}
	plugin.await(t, "UpdatePodSandbox "+p.ID+" 20 5242880")
	plugin.await(t, "PostUpdatePodSandbox "+p.ID+" 5242880")
}

func TestNRIChangesOtherContainers(t *testing.T) {
	n := newNode(t, "nrioth", 94)
	plugin := n.startPlugin(t)
	p := n.RunPod(t, podConfig("others"))
	first := n.run(t, p, "first", "sleep", "1000")
	sharesOf := func(id string) int64 { return n.ContainerStatus(t, id).GetResources().GetLinux().GetCpuShares() }
	c := containerConfig(p, "second", busybox, "sleep", "1000")
	c.Annotations = map[string]string{"others": first, "heir": first, "later": "250"}
	second := n.CreateContainer(t, p, c)
	if got := sharesOf(first); got != 300 {
		t.Errorf("CPU shares after the answer to CreateContainer: got %d, want 300", got)
	}
	n.StartContainer(t, second)
	if line := plugin.await(t, "UpdateContainers"); line != "UpdateContainers 1 <nil>" {
		t.Errorf("unsolicited update of an existing and an unknown container: got %q, want one update and no error", line)
	}
	if got := sharesOf(second); got != 250 {
		t.Errorf("CPU shares after an unsolicited update: got %d, want 250", got)
	}
	if got := n.cgroupFile(t, second, "cpu/cpu.shares", "cpu.weight"); !unifiedHost() && got != "250" {
		t.Errorf("cgroup after an unsolicited update: got %s shares, want 250", got)
	}
	if _, err := n.RuntimeService.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: second}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the limits of who is left", func() bool { return sharesOf(first) == 400 })
	// A container that no longer exists is no error.
	c.Metadata.Name, c.Annotations = "third", map[string]string{"others": second}
	n.CreateContainer(t, p, c)
}

// TestNRIPluginOfTheDaemon tests a plugin that the daemon starts with a configuration.
func TestNRIPluginOfTheDaemon(t *testing.T) {
	n := makeNode("nridir")
	n.Network = n.Bridge("csnridir", "10.97.0.0/16")
	dir := t.TempDir()
	plugin := &runningPlugin{log: filepath.Join(dir, "events")}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"plugins/20-own":   "#!/bin/sh\nexec env " + pluginVariable + "=" + plugin.log + " " + self + "\n",
		"plugins/30-never": "#!/bin/sh\nexit 1\n",
		"conf/own.conf":    "its-configuration",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	n.Config = "nri.disable_connections = true\nnri.plugin_dir = \"" + dir + "/plugins\"\nnri.plugin_config_dir = \"" + dir + "/conf\"\n"
	n.start(t)
	plugin.await(t, "Configure criserver true its-configuration")
	p := n.RunPod(t, podConfig("configured"))
	plugin.await(t, "RunPodSandbox "+p.ID)
	if _, err := os.Stat(n.NRISocket()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("NRI socket with disable_connections: got error %v, want not exist", err)
	}
	n.RemovePod(t, p.ID)
	if err := n.Stop(); err != nil {
		t.Errorf("stop the daemon: %v", err)
	}
	if out, err := exec.CommandContext(t.Context(), "pgrep", "-f", plugin.log).Output(); err == nil {
		t.Errorf("processes of the plugin after the end of the daemon: got %s, want none", out)
	}
	n.restart(t)
	n.takeBaseline(t)
}

func TestNRIDisabled(t *testing.T) {
	n := makeNode("nrioff")
	n.Network = n.Bridge("csnrioff", "10.98.0.0/16")
	n.Config = "nri.enable = false"
	n.start(t)
	p := n.RunPod(t, podConfig("off"))
	n.run(t, p, "main", "true")
	if _, err := os.Stat(n.NRISocket()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("NRI socket without NRI: got error %v, want not exist", err)
	}
	if log := n.LogTail(); strings.Contains(log, "subsystem=nri") {
		t.Errorf("log without NRI: got %s, want no entries of NRI", log)
	}
}
