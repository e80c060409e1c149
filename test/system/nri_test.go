package system

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// runningPlugin is a plugin process.
type runningPlugin struct {
	log string
	cmd *exec.Cmd
}

// startPlugin runs a plugin and waits until it is synchronized.
func (n *node) startPlugin(t *testing.T) *runningPlugin {
	t.Helper()
	p := &runningPlugin{log: filepath.Join(t.TempDir(), "events"), cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), pluginVariable+"="+p.log, pluginSocket+"="+n.NRISocket())
	p.cmd.Stderr = os.Stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.kill() })
	p.await(t, "Synchronize")
	// What the daemon logs comes last, after it has added the plugin.
	waitFor(t, "the plugin to be counted", func() bool { return strings.Contains(n.LogTail(), "plugins=1") })
	return p
}

func (p *runningPlugin) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// events are those of one pod or container, by their names.
func (p *runningPlugin) events(t *testing.T, id string) []string {
	t.Helper()
	var out []string
	for _, line := range p.lines(t) {
		if f := strings.Fields(line); len(f) > 1 && f[1] == id {
			out = append(out, f[0])
		}
	}
	return out
}

func (p *runningPlugin) lines(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile(p.log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func (p *runningPlugin) await(t *testing.T, line string) string {
	t.Helper()
	found := ""
	waitFor(t, "the plugin's "+line, func() bool {
		i := slices.IndexFunc(p.lines(t), func(l string) bool { return strings.HasPrefix(l, line) })
		if i >= 0 {
			found = p.lines(t)[i]
		}
		return i >= 0
	})
	return found
}

func asked(p *cri.PodSandboxConfig, event, what string) *cri.PodSandboxConfig {
	p.Annotations = map[string]string{"ask/" + event: what}
	return p
}

func TestNRITellsOfEveryStepInOrder(t *testing.T) {
	n := newNode(t, "nriall", 90)
	plugin := n.startPlugin(t)
	p := n.runPod(t, podConfig("all"))
	if line, want := plugin.await(t, "RunPodSandbox"), "RunPodSandbox "+p.id+" all system uid-all 2 true"; line != want {
		t.Errorf("got %q, want %q: names, addresses, and the network namespace in reach", line, want)
	}
	id := n.run(t, p, "main", "sleep", "1000")
	update := &cri.UpdateContainerResourcesRequest{ContainerId: id, Linux: &cri.LinuxContainerResources{CpuShares: 500}}
	if _, err := n.rt.UpdateContainerResources(t.Context(), update); err != nil {
		t.Fatal(err)
	}
	if got := n.status(t, id).GetResources().GetLinux().GetCpuShares(); got != 555 {
		t.Errorf("after an update that the plugin changed, the status shows %d shares, want 555", got)
	}
	if got := n.cgroupFile(t, id, "memory/memory.soft_limit_in_bytes", "memory.low"); got != strconv.Itoa(8<<20) {
		t.Errorf("the plugin's reservation: the cgroup has %s", got)
	}
	own := n.create(t, p, containerConfig(p, "fast", busybox, "sh", "-c", "exit 3"))
	n.startContainer(t, own)
	plugin.await(t, "StopContainer "+own) // without anybody having asked for a stop
	if _, err := n.rt.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: own}); err != nil {
		t.Fatal(err)
	}
	n.removePod(t, p.id)
	if _, err := n.rt.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
		t.Fatal(err)
	}
	for what, want := range map[string]string{
		p.id: "RunPodSandbox StopPodSandbox RemovePodSandbox",
		id:   "CreateContainer PostCreateContainer StartContainer PostStartContainer UpdateContainer PostUpdateContainer StopContainer RemoveContainer",
		own:  "CreateContainer PostCreateContainer StartContainer PostStartContainer StopContainer RemoveContainer",
	} {
		if got := strings.Join(plugin.events(t, what), " "); got != want {
			t.Errorf("events of %s\n%s, want\n%s", what, got, want)
		}
	}
	lines := strings.Join(plugin.lines(t), "\n")
	if strings.Index(lines, "StopContainer "+id) > strings.Index(lines, "StopPodSandbox "+p.id) {
		t.Error("the pod's stop was told before its container's")
	}
	for _, line := range []string{"StopContainer " + id + " CONTAINER_STOPPED", "RemoveContainer " + id + " main", "PostUpdateContainer " + id + " 555"} {
		if !strings.Contains(lines, line) {
			t.Errorf("no line %q", line)
		}
	}
}

func TestNRIAdjustsAContainer(t *testing.T) {
	n := newNode(t, "nriadj", 91)
	plugin := n.startPlugin(t)
	mount := t.TempDir()
	if err := os.WriteFile(filepath.Join(mount, "file"), []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := n.runPod(t, podConfig("adjusted"))
	c := containerConfig(p, "main", busybox, "sleep", "1000")
	c.Annotations = map[string]string{"ask/CreateContainer": "adjust", "mount": mount}
	c.Envs = []*cri.KeyValue{{Key: "UNWANTED", Value: []byte("1")}, {Key: "KEPT", Value: []byte("2")}}
	id := n.create(t, p, c)
	if _, err := os.Stat(filepath.Join(mount, "hooked")); err != nil {
		t.Errorf("the plugin's OCI hook has not run: %v", err)
	}
	n.startContainer(t, id)
	for name, probe := range map[string]struct{ cmd, want string }{
		"env":            {"tr '\\0' '\\n' </proc/1/environ | grep -E 'ADDED|UNWANTED|KEPT' | sort", "ADDED=by a plugin\nKEPT=2"},
		"env of an exec": {"echo $ADDED", "by a plugin"},
		"mount":          {"cat /from/plugin/file; touch /from/plugin/x 2>/dev/null || echo ,ro", "hello,ro"},
		"rlimit":         {"ulimit -n; ulimit -Hn", "666\n777"},
		"device":         {"ls -l /dev/given | tr -s ' ' | cut -d' ' -f5-6; echo x >/dev/given && echo ok", "1, 3\nok"},
		"oom score":      {"cat /proc/1/oom_score_adj", "432"},
		"sysctl":         {"cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "77"},
	} {
		if got := n.exec(t, id, "sh", "-c", probe.cmd); got != probe.want {
			t.Errorf("%s: got %q, want %q", name, got, probe.want)
		}
	}
	check := func(when string) {
		t.Helper()
		r := n.status(t, id).GetResources().GetLinux()
		if r.GetMemoryLimitInBytes() != 64<<20 || r.GetCpuShares() != 333 || r.GetOomScoreAdj() != 432 {
			t.Errorf("%s: the status shows %v", when, r)
		}
	}
	check("at once")
	if path := n.cgroupOf(t, id); !strings.HasSuffix(path, "-moved") {
		t.Errorf("the cgroup is %s", path)
	}
	if got := n.cgroupFile(t, id, "memory/memory.limit_in_bytes", "memory.max"); got != strconv.Itoa(64<<20) {
		t.Errorf("memory limit in the cgroup: %s", got)
	}
	if got := n.cgroupFile(t, id, "pids/pids.max", "pids.max"); got != "55" {
		t.Errorf("pids limit in the cgroup: %s", got)
	}
	// The daemon goes and comes; the plugin connects again and is synchronized.
	n.Kill()
	if err := os.Truncate(plugin.log, 0); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	check("after a restart of the daemon")
	if line, want := plugin.await(t, "SyncContainer "+id), "SyncContainer "+id+" CONTAINER_RUNNING "+strconv.Itoa(64<<20); line != want {
		t.Errorf("got %q, want %q", line, want)
	}
	plugin.await(t, "SyncPod "+p.id+" adjusted")
}

func TestNRIRefusals(t *testing.T) {
	n := newNode(t, "nriveto", 92)
	plugin := n.startPlugin(t)
	n.mark(t)
	refused := func(what string, err error, code codes.Code, words string) {
		t.Helper()
		if status.Code(err) != code || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: got %v, want %s and the words %q", what, err, code, words)
		}
	}
	const words = `NRI plugin "10-test"`
	config := asked(podConfig("refused"), "RunPodSandbox", "refuse")
	_, err := n.rt.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config})
	refused("pod", err, codes.Unknown, words+", RunPodSandbox: not on this node")
	pods, err := n.rt.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{})
	if err != nil || len(pods.GetItems()) != 0 {
		t.Errorf("pods that are left: %v, %v", pods.GetItems(), err)
	}
	line := strings.Fields(plugin.await(t, "RunPodSandbox"))
	if got := strings.Join(plugin.events(t, line[1]), " "); got != "RunPodSandbox StopPodSandbox RemovePodSandbox" {
		t.Errorf("events of the refused pod: %s", got)
	}
	n.mustBeClean(t.Context()) // namespaces, links, addresses, cgroups, files
	config.Annotations = nil
	p := n.runPod(t, config)
	n.mark(t)

	c := containerConfig(p, "c", busybox, "sleep", "1000")
	c.Annotations = map[string]string{"ask/CreateContainer": "refuse"}
	create := func() error {
		_, err := n.rt.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.id, Config: c, SandboxConfig: p.config})
		return err
	}
	refused("container", create(), codes.Unknown, words+", CreateContainer: not on this node")
	c.Annotations = map[string]string{"blockio": "slow"}
	refused("a class of block I/O", create(), codes.FailedPrecondition, "blockio_class")
	list, err := n.rt.ListContainers(t.Context(), &cri.ListContainersRequest{})
	if err != nil || len(list.GetContainers()) != 0 {
		t.Errorf("containers that are left: %v, %v", list.GetContainers(), err)
	}
	n.mustBeClean(t.Context())

	c.Annotations = map[string]string{"ask/StartContainer": "refuse"}
	id := n.create(t, p, c)
	_, err = n.rt.StartContainer(t.Context(), &cri.StartContainerRequest{ContainerId: id})
	refused("start", err, codes.Unknown, words+", StartContainer: not on this node")
	if s := n.status(t, id); s.GetState() != cri.ContainerState_CONTAINER_EXITED || !strings.Contains(s.GetMessage(), "not on this node") {
		t.Errorf("the container that may not start is %v", s)
	}
	n.removePod(t, p.id)
	plugin.kill()
	n.mark(t) // what was marked had the pod
}

func TestNRIUpdatesOfAPod(t *testing.T) {
	n := newNode(t, "nripod", 93)
	plugin := n.startPlugin(t)
	p := n.runPod(t, podConfig("limits"))
	update := func(shares int64) error {
		_, err := n.rt.UpdatePodSandboxResources(t.Context(), &cri.UpdatePodSandboxResourcesRequest{
			PodSandboxId: p.id, Overhead: &cri.LinuxContainerResources{CpuShares: 20},
			Resources: &cri.LinuxContainerResources{CpuShares: shares, MemoryLimitInBytes: 5 << 20},
		})
		return err
	}
	if err := update(13); err == nil || !strings.Contains(err.Error(), "bad luck") {
		t.Errorf("got %v", err)
	}
	if err := update(14); err != nil {
		t.Errorf("an update that is refused once it is done: %v", err)
	}
	if got := strings.Join(plugin.events(t, p.id), " "); got != "RunPodSandbox UpdatePodSandbox UpdatePodSandbox PostUpdatePodSandbox" {
		t.Errorf("events: %s", got)
	}
	plugin.await(t, "UpdatePodSandbox "+p.id+" 20 5242880")
	plugin.await(t, "PostUpdatePodSandbox "+p.id+" 5242880")
}

func TestNRIChangesOtherContainers(t *testing.T) {
	n := newNode(t, "nrioth", 94)
	plugin := n.startPlugin(t)
	p := n.runPod(t, podConfig("others"))
	first := n.run(t, p, "first", "sleep", "1000")
	sharesOf := func(id string) int64 { return n.status(t, id).GetResources().GetLinux().GetCpuShares() }
	c := containerConfig(p, "second", busybox, "sleep", "1000")
	c.Annotations = map[string]string{"others": first, "heir": first, "later": "250"}
	second := n.create(t, p, c)
	if got := sharesOf(first); got != 300 {
		t.Errorf("with the answer to a creation: %d shares, want 300", got)
	}
	n.startContainer(t, second)
	if line := plugin.await(t, "UpdateContainers"); line != "UpdateContainers 1 <nil>" {
		t.Errorf("an unsolicited update of one container that is there and one that is not: %q", line)
	}
	if got := sharesOf(second); got != 250 {
		t.Errorf("unsolicited: %d shares, want 250", got)
	}
	if got := n.cgroupFile(t, second, "cpu/cpu.shares", "cpu.weight"); !unifiedHost() && got != "250" {
		t.Errorf("unsolicited: the cgroup has %s shares", got)
	}
	if _, err := n.rt.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: second}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the limits of who is left", func() bool { return sharesOf(first) == 400 })
	// One that is gone is no obstacle.
	c.Metadata.Name, c.Annotations = "third", map[string]string{"others": second}
	n.create(t, p, c)
}

// TestNRIPluginThatFails has plugins die and hang in the middle of requests: all
// of these go on without them.
func TestNRIPluginThatFails(t *testing.T) {
	n := makeNode("nrifail")
	n.Network = n.Bridge("csnrifail", "10.95.0.0/16")
	n.Config = `nri.request_timeout = "500ms"`
	n.start(t)
	for _, how := range []string{"die", "hang"} {
		for _, event := range []string{"RunPodSandbox", "CreateContainer", "StartContainer", "StopPodSandbox"} {
			t.Run(how+" in "+event, func(t *testing.T) {
				plugin := n.startPlugin(t)
				defer plugin.kill()
				p := n.runPod(t, asked(podConfig("fail"), event, how))
				c := containerConfig(p, "c", busybox, "sleep", "1000")
				c.Annotations = map[string]string{"ask/" + event: how}
				id := n.create(t, p, c)
				n.startContainer(t, id)
				if s := n.status(t, id).GetState(); s != cri.ContainerState_CONTAINER_RUNNING {
					t.Errorf("the container is %s", s)
				}
				n.removePod(t, p.id)
				if !slices.Contains(append(plugin.events(t, p.id), plugin.events(t, id)...), event) {
					t.Errorf("the plugin was not told of %s", event)
				}
				waitFor(t, "the plugin's end", func() bool { return strings.Contains(n.LogTail(), "plugins=0") })
			})
		}
	}
}

// TestNRIShowsNothingTooEarly holds plugins up in hooks and looks around.
func TestNRIShowsNothingTooEarly(t *testing.T) {
	n := makeNode("nrihold")
	n.Network = n.Bridge("csnrihold", "10.96.0.0/16")
	n.Config = `nri.request_timeout = "60s"`
	n.start(t)
	plugin := n.startPlugin(t)
	dir := t.TempDir()
	release := func(name string) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := podConfig("held")
	config.Annotations = map[string]string{"ask/RunPodSandbox": filepath.Join(dir, "run"), "ask/StopPodSandbox": filepath.Join(dir, "stop")}
	var p *pod
	ran := make(chan error, 1)
	go func() {
		r, err := n.rt.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config})
		p = &pod{r.GetPodSandboxId(), config}
		ran <- err
	}()
	podID := strings.Fields(plugin.await(t, "RunPodSandbox"))[1]
	if r, err := n.rt.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{}); err != nil || len(r.GetItems()) != 0 {
		t.Errorf("amid RunPodSandbox: %v, %v", r.GetItems(), err)
	}
	if _, err := n.rt.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: podID}); status.Code(err) != codes.NotFound {
		t.Errorf("amid RunPodSandbox, status: %v", err)
	}
	early := containerConfig(&pod{podID, config}, "early", busybox, "true")
	if _, err := n.rt.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: podID, Config: early, SandboxConfig: config}); status.Code(err) != codes.NotFound {
		t.Errorf("amid RunPodSandbox, a container: %v", err)
	}
	release("run")
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	c := containerConfig(p, "main", busybox, "sleep", "1000")
	c.Annotations = map[string]string{"ask/CreateContainer": filepath.Join(dir, "create")}
	created := make(chan error, 1)
	go func() {
		_, err := n.rt.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.id, Config: c, SandboxConfig: config})
		created <- err
	}()
	id := strings.Fields(plugin.await(t, "CreateContainer"))[1]
	if r, err := n.rt.ListContainers(t.Context(), &cri.ListContainersRequest{}); err != nil || len(r.GetContainers()) != 0 {
		t.Errorf("amid CreateContainer: %v, %v", r.GetContainers(), err)
	}
	release("create")
	if err := <-created; err != nil {
		t.Fatal(err)
	}
	n.startContainer(t, id)
	stopped := make(chan error, 1)
	go func() {
		_, err := n.rt.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: p.id})
		stopped <- err
	}()
	plugin.await(t, "StopPodSandbox")
	if s := n.status(t, id).GetState(); s != cri.ContainerState_CONTAINER_EXITED {
		t.Errorf("amid StopPodSandbox the container is %s", s)
	}
	if r, err := n.rt.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: p.id}); err != nil || r.GetStatus().GetState() != cri.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("amid StopPodSandbox: %v, %v", r.GetStatus(), err)
	}
	release("stop")
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// TestNRIPluginOfTheDaemon is one that the daemon runs, with a configuration.
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
	p := n.runPod(t, podConfig("own"))
	plugin.await(t, "RunPodSandbox "+p.id)
	if _, err := os.Stat(n.NRISocket()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket of a node that takes no connections: %v", err)
	}
	n.removePod(t, p.id)
	if err := n.Stop(); err != nil {
		t.Error(err)
	}
	if out, err := exec.CommandContext(t.Context(), "pgrep", "-f", plugin.log).Output(); err == nil {
		t.Errorf("the daemon's plugin has outlived it: %s", out)
	}
	n.restart(t)
	n.mark(t)
}

func TestNRIOff(t *testing.T) {
	n := makeNode("nrioff")
	n.Network = n.Bridge("csnrioff", "10.98.0.0/16")
	n.Config = "nri.enable = false"
	n.start(t)
	p := n.runPod(t, podConfig("off"))
	n.run(t, p, "main", "true")
	if _, err := os.Stat(n.NRISocket()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket of NRI that is off: %v", err)
	}
	if log := n.LogTail(); strings.Contains(log, "subsystem=nri") {
		t.Errorf("NRI that is off speaks: %s", log)
	}
}

// TestNRIKeepsNobodyFromStopping has a plugin hang in the creation of one pod
// while another is listed and stopped.
func TestNRIKeepsNobodyFromStopping(t *testing.T) {
	n := makeNode("nristop")
	n.Network = n.Bridge("csnristop", "10.99.0.0/16")
	n.Config = `nri.request_timeout = "2s"`
	n.start(t)
	plugin := n.startPlugin(t)
	p := n.runPod(t, podConfig("other"))
	id := n.run(t, p, "main", "sleep", "1000")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	hung := make(chan error, 1)
	go func() {
		_, err := n.rt.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: asked(podConfig("hung"), "RunPodSandbox", "hang")})
		hung <- err
	}()
	waitFor(t, "the plugin to hang", func() bool { return strings.Count(strings.Join(plugin.lines(t), "\n"), "RunPodSandbox") == 2 })
	if _, err := n.rt.ListContainers(ctx, &cri.ListContainersRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := n.rt.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: id}); err != nil {
		t.Error(err)
	}
	if s := n.status(t, id).GetState(); s != cri.ContainerState_CONTAINER_EXITED {
		t.Errorf("the container is %s", s)
	}
	if err := <-hung; err != nil {
		t.Errorf("the pod that the plugin does not answer about: %v", err)
	}
}

// TestNRILosesNothing connects a plugin while pods and containers are being made:
// each it either finds when it is synchronized or is asked about, and not both.
func TestNRILosesNothing(t *testing.T) {
	n := newNode(t, "nrilose", 100)
	const count = 24
	started := make(chan struct{})
	var once sync.Once
	var plugin *runningPlugin
	var all sync.WaitGroup
	all.Go(func() {
		parallel(count, 6, func(i int) {
			if i == count/2 {
				once.Do(func() { close(started) })
			}
			if _, _, err := n.bring(t.Context(), i); err != nil {
				t.Error(err)
			}
		})
	})
	<-started
	plugin = n.startPlugin(t)
	all.Wait()
	list, err := n.rt.ListContainers(t.Context(), &cri.ListContainersRequest{})
	if err != nil || len(list.GetContainers()) != count {
		t.Fatalf("%d containers, %v", len(list.GetContainers()), err)
	}
	asked := 0
	for _, c := range list.GetContainers() {
		for id, ways := range map[string][]string{c.GetId(): {"SyncContainer", "CreateContainer"}, c.GetPodSandboxId(): {"SyncPod", "RunPodSandbox"}} {
			events := plugin.events(t, id)
			if slices.Contains(events, ways[0]) == slices.Contains(events, ways[1]) {
				t.Errorf("the plugin has learned of %s by %v", id, events)
			}
			if slices.Contains(events, ways[1]) {
				asked++
			}
		}
	}
	t.Logf("it was asked about %d of %d", asked, 2*count)
}
