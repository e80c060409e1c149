package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/sandbox/namespace"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const fakeConf = `{"cniVersion":"1.1.0","name":"fake","plugins":[{"type":"fake"}]}`

// fakePlugin is the directory of a plugin that testdata/plugin.sh describes.
type fakePlugin struct {
	t   testing.TB
	dir string
}

func fakeBed(t testing.TB) (*bed, fakePlugin) {
	t.Helper()
	p := fakePlugin{t, t.TempDir()}
	script, err := os.ReadFile("testdata/plugin.sh")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "fake"), script, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left, _ := os.ReadDir(filepath.Join(p.dir, "attached")); len(left) > 0 {
			t.Errorf("%d pods left on the network", len(left))
		}
	})
	return newBed(t, fakeConf, p.dir), p
}

func (p fakePlugin) fail(command string, times int) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, "fail-"+command), []byte(strconv.Itoa(times)), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p fakePlugin) hold(command string) (release func()) {
	p.t.Helper()
	file := filepath.Join(p.dir, "hold-"+command)
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		p.t.Fatal(err)
	}
	return func() { _ = os.Remove(file) }
}

// calls counts the calls of a command.
func (p fakePlugin) calls(command string) int {
	b, _ := os.ReadFile(filepath.Join(p.dir, "calls"))
	return strings.Count("\n"+string(b), "\n"+command+" ")
}

func TestPodLife(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	c := podConfig("a")
	c.LogDirectory = filepath.Join(t.TempDir(), "logs", "a")
	c.Linux.Sysctls = map[string]string{
		"net.ipv4.ip_unprivileged_port_start": "0", "kernel.shm_rmid_forced": "1", "net/ipv4/conf/lo/arp_notify": "1",
	}
	p := mustRun(t, m, c)
	if !p.Ready || len(p.IPs) != 2 || p.IPs[0].String() != "10.1.2.3" || p.IPs[1].String() != "fd00::3" {
		t.Fatalf("%+v", p)
	}
	again, err := m.RunPod(t.Context(), c, "")
	if err != nil || again != p.ID {
		t.Errorf("the same request again: %q, %v", again, err)
	}
	if got, err := m.Get(p.ID[:8]); err != nil || got != p {
		t.Errorf("by prefix: %v, %v", got, err)
	}
	inNetNS(t, p.Namespaces.Net, func() error {
		for path, want := range map[string]string{"ipv4/ip_unprivileged_port_start": "0", "ipv4/conf/lo/arp_notify": "1", "ipv6/conf/default/accept_ra": "0"} {
			got, err := os.ReadFile("/proc/sys/net/" + path)
			if err != nil || strings.TrimSpace(string(got)) != want {
				t.Errorf("%s is %q, %v; want %s", path, got, err, want)
			}
		}
		return nil
	})
	if _, err := os.Stat(c.LogDirectory); err != nil {
		t.Error(err)
	}
	mustRemove(t, m, p.ID)
	if err := m.Stop(t.Context(), p.ID); !errdefs.IsNotFound(err) {
		t.Errorf("stop of a removed pod: %v", err)
	}
	if plugin.calls("ADD") != 1 || plugin.calls("DEL") != 1 {
		t.Errorf("%d ADD, %d DEL", plugin.calls("ADD"), plugin.calls("DEL"))
	}
	if got, err := os.ReadFile("/proc/sys/kernel/shm_rmid_forced"); err != nil || strings.TrimSpace(string(got)) != "0" {
		t.Errorf("a sysctl of the pod reached the host: %q, %v", got, err)
	}
}

func TestNameIsTaken(t *testing.T) {
	b, _ := fakeBed(t)
	m := b.start()
	p := mustRun(t, m, podConfig("a"))
	other := podConfig("a")
	other.Labels = map[string]string{"x": "y"}
	if _, err := m.RunPod(t.Context(), other, ""); !errdefs.IsAlreadyExists(err) {
		t.Errorf("another request of the same name: %v", err)
	}
	if err := m.Stop(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := m.RunPod(t.Context(), podConfig("a"), ""); !errdefs.IsAlreadyExists(err) {
		t.Errorf("the name of a stopped pod: %v", err)
	}
	next := podConfig("a")
	next.Metadata.Attempt = 1
	q := mustRun(t, m, next)
	if got := m.List(); len(got) != 2 || got[0].ID != p.ID || got[1].ID != q.ID {
		t.Errorf("list %v", got)
	}
	mustRemove(t, m, p.ID, q.ID)
}

func TestFailedAddIsUndone(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	plugin.fail("ADD", 1)
	_, err := m.RunPod(t.Context(), podConfig("a"), "")
	if err == nil || !strings.Contains(err.Error(), "told to fail") {
		t.Fatalf("error %v does not quote the plugin", err)
	}
	if plugin.calls("DEL") != 1 || len(m.List()) != 0 {
		t.Errorf("%d DEL, pods %v", plugin.calls("DEL"), m.List())
	}
	b.checkNothingLeft()
	mustRemove(t, m, mustRun(t, m, podConfig("a")).ID)
}

func TestFailedUndoStaysVisible(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	plugin.fail("ADD", 1)
	plugin.fail("DEL", 2)
	if _, err := m.RunPod(t.Context(), podConfig("a"), ""); err == nil {
		t.Fatal("no error")
	}
	pods := m.List()
	if len(pods) != 1 || pods[0].Ready || !strings.Contains(pods[0].NotReadyReason, "told to fail") {
		t.Fatalf("pods %+v", pods)
	}
	eventually(t, "tear-down in the background", func() bool { return plugin.calls("DEL") == 3 && !namespace.Pinned(pods[0].Namespaces.Net) })
	mustRemove(t, m, pods[0].ID)
}

func TestFailedDelIsRetriedToTheEnd(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	p := mustRun(t, m, podConfig("a"))
	plugin.fail("DEL", 3)
	if err := m.Stop(t.Context(), p.ID); err == nil {
		t.Fatal("no error")
	}
	if got, _ := m.Get(p.ID); got.Ready || got.NotReadyReason == "" {
		t.Errorf("after a failed stop: %+v", got)
	}
	if err := m.Stop(t.Context(), p.ID); err == nil { // tries again at once
		t.Fatal("no error")
	}
	b.halt() // what is left to do outlives the daemon
	m = b.start()
	eventually(t, "tear-down by the next daemon", func() bool { return plugin.calls("DEL") == 4 })
	mustRemove(t, m, p.ID)
	if n := plugin.calls("DEL"); n != 4 {
		t.Errorf("%d DEL", n)
	}
}

func TestRetryJoinsTheFirstTry(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	release := plugin.hold("ADD")
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error)
	go func() { _, err := m.RunPod(ctx, podConfig("a"), ""); left <- err }()
	eventually(t, "the plugin runs", func() bool { return plugin.calls("ADD") == 1 })
	cancel()
	if err := <-left; err == nil || !strings.Contains(err.Error(), "CNI ADD") {
		t.Errorf("error %v does not say where it hangs", err)
	}
	if len(m.List()) != 0 {
		t.Error("a pod in the making is shown")
	}
	var wg sync.WaitGroup
	got := make([]string, 3)
	for i := range got {
		wg.Go(func() {
			var err error
			if got[i], err = m.RunPod(t.Context(), podConfig("a"), ""); err != nil {
				t.Error(err)
			}
		})
	}
	release()
	wg.Wait()
	if got[0] != got[1] || got[1] != got[2] || plugin.calls("ADD") != 1 {
		t.Errorf("ids %q, %d ADD", got, plugin.calls("ADD"))
	}
	mustRemove(t, m, got[0])
}

func TestStopDoesNotBlock(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	p := mustRun(t, m, podConfig("a"))
	b.containers.hold = make(chan struct{})
	stopped := make(chan error)
	go func() { stopped <- m.Stop(t.Context(), p.ID) }()
	eventually(t, "stop reaches the containers", func() bool { got, _ := m.Get(p.ID); return !got.Ready })
	if plugin.calls("DEL") != 0 {
		t.Error("the network went before the containers")
	}
	removed := make(chan error)
	go func() { removed <- m.Remove(t.Context(), p.ID) }()
	eventually(t, "the second reaches the containers too", func() bool {
		b.containers.mu.Lock()
		defer b.containers.mu.Unlock()
		return b.containers.stops == 2
	})
	close(b.containers.hold)
	if err := errors.Join(<-stopped, <-removed); err != nil {
		t.Error(err)
	}
	if len(b.containers.removed) != 1 {
		t.Errorf("containers removed: %v", b.containers.removed)
	}
}

func TestContainersThatDoNotStop(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	p := mustRun(t, m, podConfig("a"))
	b.containers.stopErr = errors.New("stuck")
	if err := m.Stop(t.Context(), p.ID); err == nil || plugin.calls("DEL") != 0 {
		t.Errorf("%v, %d DEL", err, plugin.calls("DEL"))
	}
	b.containers.mu.Lock()
	b.containers.stopErr = nil
	b.containers.mu.Unlock()
	eventually(t, "stop in the background", func() bool { return plugin.calls("DEL") == 1 })
	mustRemove(t, m, p.ID)
}

// TestDeathInTheMaking stops the making of a pod at each point where a daemon
// can die, by leaving it there.
func TestDeathInTheMaking(t *testing.T) {
	steps := []struct {
		name string
		do   func(*build) error
	}{
		{"intent", func(*build) error { return nil }},
		{"files", func(b *build) error { return b.files() }},
		{"network", func(b *build) error { return b.isolate(context.Background()) }},
		{"hosts", func(b *build) error { return b.hosts() }},
	}
	for i, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			b, plugin := fakeBed(t)
			m := b.restored()
			bd := &build{m: m, config: podConfig("a"), rec: &record{ID: strings.Repeat("ab", 32)}}
			if err := bd.begin(); err != nil {
				t.Fatal(err)
			}
			for _, s := range steps[:i+1] {
				if err := s.do(bd); err != nil {
					t.Fatal(err)
				}
			}
			m = b.start()
			if len(m.List()) != 0 {
				t.Error("remains are shown")
			}
			// The same pod asked for has to wait for the remains to go.
			p := mustRun(t, m, podConfig("a"))
			if plugin.calls("DEL") != 1 {
				t.Errorf("%d DEL", plugin.calls("DEL"))
			}
			mustRemove(t, m, p.ID)
		})
	}
}

func TestRestore(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	good, lost, old := mustRun(t, m, podConfig("good")), mustRun(t, m, podConfig("lost")), mustRun(t, m, podConfig("old"))
	stopped := mustRun(t, m, podConfig("stopped"))
	if err := m.Stop(t.Context(), stopped.ID); err != nil {
		t.Fatal(err)
	}
	b.halt()
	bad := strings.Repeat("0f", 32)
	badDir := filepath.Join(b.cfg.RunDir, "pods", bad)
	if err := errors.Join(os.Mkdir(badDir, 0o700), os.WriteFile(filepath.Join(badDir, recordFile), []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	stray := filepath.Join(b.cfg.RunDir, "ns", strings.Repeat("1e", 32))
	if err := namespace.Make(namespace.Spec{Dir: stray, Net: true}); err != nil {
		t.Fatal(err)
	}
	if err := namespace.UnpinAll(filepath.Dir(lost.Namespaces.Net)); err != nil {
		t.Fatal(err)
	}
	rec, _, err := m.dirs.read(old.ID)
	if err != nil {
		t.Fatal(err)
	}
	rec.BootID = "another"
	if err := m.dirs.write(rec); err != nil {
		t.Fatal(err)
	}

	m = b.start()
	if p, err := m.Get(good.ID); err != nil || !p.Ready || mustJSON(t, p.IPs) != mustJSON(t, good.IPs) || p.Config.Hostname != "good" {
		t.Errorf("good: %+v, %v", p, err)
	}
	for _, id := range []string{lost.ID, stopped.ID} {
		if p, err := m.Get(id); err != nil || p.Ready {
			t.Errorf("%s: %+v, %v", id, p, err)
		}
	}
	if namespace.Pinned(filepath.Join(stray, namespace.Net)) {
		t.Error("namespaces of nobody are left")
	}
	if _, err := os.Stat(filepath.Join(badDir, recordFile)); err != nil {
		t.Errorf("a record that cannot be read was touched: %v", err)
	}
	eventually(t, "the pod of before the boot is swept", func() bool {
		_, err := os.Stat(filepath.Join(b.cfg.RunDir, "pods", old.ID))
		return os.IsNotExist(err)
	})
	mustRemove(t, m, good.ID, lost.ID, stopped.ID)
	if n := plugin.calls("DEL"); n != 4 {
		t.Errorf("%d DEL", n)
	}
	if err := os.RemoveAll(badDir); err != nil {
		t.Error(err)
	}
}

func TestHostPodNeedsNoNetwork(t *testing.T) {
	b := newBed(t, "")
	m := b.start()
	if err := m.NetworkStatus(); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), b.cfg.CNI.ConfDirs[0]) {
		t.Errorf("network status %v", err)
	}
	if _, err := m.RunPod(t.Context(), podConfig("a"), ""); !errdefs.IsUnavailable(err) {
		t.Errorf("a pod without network: %v", err)
	}
	p := mustRun(t, m, hostPod("h"))
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	name, err := os.ReadFile(p.Hostname)
	if err != nil || strings.TrimSpace(string(name)) != host || p.Namespaces != (Namespaces{}) || p.Shm != "" || len(p.IPs) != 0 {
		t.Errorf("%+v, hostname %q, %v", p, name, err)
	}
	mustRemove(t, m, p.ID)
}

func TestNetworkStatus(t *testing.T) {
	b, plugin := fakeBed(t)
	m := b.start()
	if err := m.NetworkStatus(); err != nil {
		t.Fatal(err)
	}
	b.writeConf("05-other.conflist", `{"cniVersion":"1.0.0","name":"other","plugins":[{"type":"nowhere"}]}`)
	eventually(t, "the missing plugin is named", func() bool {
		err := m.NetworkStatus()
		return err != nil && strings.Contains(err.Error(), `"nowhere"`) && strings.Contains(err.Error(), plugin.dir)
	})
	b.writeConf("05-other.conflist", `{`)
	eventually(t, "the next valid file is used", func() bool { return m.NetworkStatus() == nil })
	if err := os.Remove(filepath.Join(b.cfg.CNI.ConfDirs[0], "10-test.conflist")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the broken file is named", func() bool {
		err := m.NetworkStatus()
		return err != nil && strings.Contains(err.Error(), "05-other.conflist")
	})
	plugin.fail("STATUS", 1)
	b.writeConf("10-test.conflist", fakeConf)
	eventually(t, "the plugin's own word", func() bool {
		err := m.NetworkStatus()
		return err != nil && strings.Contains(err.Error(), "told to fail")
	})
	eventually(t, "the plugin is asked again", func() bool { return m.NetworkStatus() == nil })
}

func TestPause(t *testing.T) {
	b, _ := fakeBed(t)
	b.cfg.PausePath = buildBinary(t, "../cmd/conmon")
	m := b.start()
	shared := func(name string) *cri.PodSandboxConfig {
		c := podConfig(name)
		c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
		return c
	}
	p, q := mustRun(t, m, shared("a")), mustRun(t, m, shared("b"))
	proc := "/proc/" + strconv.Itoa(p.PausePID)
	if !namespace.Pinned(p.Namespaces.PID) {
		t.Error("the PID namespace is not pinned")
	}
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Uid:\t65535\t65535\t65535\t65535", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("the pause has not %q", want)
		}
	}
	// Nothing of the host may be reached through it.
	if entries, err := os.ReadDir(proc + "/root"); err != nil || len(entries) != 1 || entries[0].Name() != "pause" {
		t.Errorf("root of the pause: %v, %v", entries, err)
	}
	if f, err := os.OpenFile(proc+"/root/pause", os.O_WRONLY, 0); err == nil {
		t.Error("the binary can be written to", f.Close())
	}
	if b.cgroups.pids[pauseCgroup(&record{ID: p.ID, CgroupParent: p.CgroupParent})] != p.PausePID {
		t.Errorf("the pause is not in its cgroup: %v", b.cgroups.pids)
	}

	b.halt()
	m = b.start()
	for _, pod := range []*Pod{p, q} {
		if got, err := m.Get(pod.ID); err != nil || !got.Ready || got.PausePID != pod.PausePID {
			t.Fatalf("after the restart: %+v, %v", got, err)
		}
	}
	killed, err := os.FindProcess(q.PausePID)
	if err == nil {
		err = killed.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the death of a pause is noticed", func() bool { got, _ := m.Get(q.ID); return !got.Ready })
	mustRemove(t, m, p.ID, q.ID)
	if _, err := os.Stat(proc); err == nil {
		t.Error("the pause is still there")
	}
}

func TestUnrecordedPauseIsFound(t *testing.T) {
	b, _ := fakeBed(t)
	b.cfg.PausePath = buildBinary(t, "../cmd/conmon")
	m := b.restored()
	c := podConfig("a")
	c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
	bd := &build{m: m, config: c, rec: &record{ID: strings.Repeat("cd", 32)}}
	if err := errors.Join(bd.begin(), bd.files(), bd.isolate(t.Context())); err != nil {
		t.Fatal(err)
	}
	ref := *bd.rec.Pause
	b.start()
	eventually(t, "the remains go", func() bool {
		_, err := os.Stat(filepath.Join(b.cfg.RunDir, "pods", bd.rec.ID))
		return os.IsNotExist(err)
	})
	if ref.Alive() {
		t.Error("the pause outlived its pod")
	}
}
