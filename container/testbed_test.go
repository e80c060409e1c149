package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/container/bundle"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/cgroup/cgrouptest"
	"github.com/criserver/criserver/internal/patience"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/host"
	"github.com/criserver/criserver/oci/runtime"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// testBed runs containers with a real runtime, a real monitor and real cgroups. Pods and
// images are fakes.
type testBed struct {
	t       testing.TB
	dir     string
	parent  string // cgroup
	runDir  string
	logs    string
	pods    *fakePods
	images  *bindImages
	runtime *runtime.Runtime
	tree    *cgroup.Tree
	spawner *cgroup.Spawner
	watcher *proc.Watcher
	monitor string
	builder *oci.Builder
}

var buildMonitor = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "criserver-conmon-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "conmon")
	cmd := exec.Command("go", "build", "-o", path, "../cmd/conmon")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the monitor: %w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	if os.Geteuid() == 0 {
		if err := cgrouptest.Sweep(); err != nil {
			fmt.Fprintln(os.Stderr, "remove the cgroups of killed tests:", err)
		}
	}
	code := m.Run()
	if path, err := buildMonitorIfBuilt(); err == nil && path != "" {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

var monitorBuilt bool

func buildMonitorIfBuilt() (string, error) {
	if !monitorBuilt {
		return "", nil
	}
	return buildMonitor()
}

// findRunc returns the runtime of the tests: $CRISERVER_TEST_RUNTIME, or the runc of
// "make tools", or the runc in $PATH.
func findRunc(t testing.TB) string {
	t.Helper()
	if other := os.Getenv("CRISERVER_TEST_RUNTIME"); other != "" {
		return other
	}
	if built, err := filepath.Abs("../bin/runc"); err == nil {
		if _, err := os.Stat(built); err == nil {
			return built
		}
	}
	path, err := exec.LookPath("runc")
	if err != nil {
		t.Fatal("no runc: run \"make tools\"")
	}
	return path
}

func newTestBed(t testing.TB) *testBed {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Fatal("no static /bin/busybox: run \"make deps\"")
	}
	monitorBuilt = true
	monitor, err := buildMonitor()
	if err != nil {
		t.Fatal(err)
	}
	parent := fmt.Sprintf("/criserver-test-container-%d-%d", os.Getpid(), time.Now().UnixNano()%1e6)
	b := testBedAt(t, t.TempDir(), parent, monitor)
	t.Cleanup(func() { // the last step, after the spawner and Release have removed their cgroups
		if _, err := os.Stat(b.tree.Dir("memory", parent)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the cgroup %s is left: %v", parent, err)
		}
	})
	if err := b.tree.Make(parent + "/pod"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.tree.Release(parent + "/pod") })
	b.startShared(parent + "/monitors")
	t.Cleanup(b.checkLeaks)
	return b
}

// testBedAt returns a testBed in this directory and cgroup, which two test beds can share.
func testBedAt(t testing.TB, dir, parent, monitor string) *testBed {
	t.Helper()
	tree, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}
	b := &testBed{t: t, dir: dir, parent: parent, runDir: filepath.Join(dir, "run"), logs: filepath.Join(dir, "logs"), tree: tree, monitor: monitor}
	for _, d := range []string{b.runDir, b.logs, filepath.Join(dir, "images")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b.runtime = &runtime.Runtime{Name: "runc", Path: findRunc(t), Root: filepath.Join(dir, "runc")}
	b.images = newBindImages(t, filepath.Join(dir, "images"))
	b.pods = &fakePods{pods: make(map[string]Pod)}
	b.pods.pods["pod"] = Pod{ID: "pod", Ready: true, CgroupParent: parent + "/pod", Config: &cri.PodSandboxConfig{
		Hostname: "pod-host", LogDirectory: b.logs,
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{Privileged: true}},
	}}
	facts, err := host.Detect(tree)
	if err != nil {
		t.Fatal(err)
	}
	b.builder = oci.NewBuilder(facts, oci.Defaults{})
	return b
}

// startShared runs the watcher and the spawner, as the daemon does.
func (b *testBed) startShared(cgroupPath string) {
	b.t.Helper()
	var err error
	if b.watcher, err = proc.NewWatcher(); err != nil {
		b.t.Fatal(err)
	}
	b.spawner = cgroup.NewSpawner(b.tree, cgroupPath)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = b.watcher.Run(ctx) })
	wg.Go(func() { _ = b.spawner.Run(ctx) })
	b.t.Cleanup(func() { cancel(); wg.Wait() })
}

func (b *testBed) config() Config {
	return Config{
		RunDir: b.runDir, Pods: b.pods, Images: b.images, Cgroups: b.tree,
		Monitors: &conmon.Launcher{Path: b.monitor, Starter: b.spawner, Watcher: b.watcher},
		Settings: Settings{Runtimes: map[string]*runtime.Runtime{"runc": b.runtime}, DefaultRuntime: "runc", Settings: bundle.Settings{Builder: b.builder}},
	}
}

// manager returns a manager that has recovered its state and runs. stop ends the manager
// without a clean-up, as the death of the daemon does, but files of the process stay open.
func (b *testBed) manager(change ...func(*Config)) (m *Manager, stop func()) {
	b.t.Helper()
	cfg := b.config()
	w, err := proc.NewWatcher()
	if err != nil {
		b.t.Fatal(err)
	}
	cfg.Watcher = w
	for _, c := range change {
		c(&cfg)
	}
	m, err = New(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := m.Recover(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- m.Run(ctx) }()
	go func() { done <- w.Run(ctx) }()
	stopped := false
	stop = sync.OnceFunc(func() {
		stopped = true
		cancel()
		if err := errors.Join(<-done, <-done); err != nil {
			b.t.Errorf("Run: %v", err)
		}
	})
	b.t.Cleanup(func() {
		if stopped {
			return
		}
		clean, cancel := context.WithTimeout(context.Background(), patience.For(time.Minute))
		defer cancel()
		if err := m.RemovePod(clean, "pod"); err != nil && !b.t.Failed() {
			b.t.Errorf("clean up: %v", err)
		}
		stop()
	})
	return m, stop
}

// checkLeaks runs at the end of each test.
func (b *testBed) checkLeaks() {
	for _, dir := range []string{filepath.Join(b.runDir, "containers"), filepath.Join(b.runDir, "exits"), b.runtime.Root} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			b.t.Error(err)
		}
		for _, e := range entries {
			b.t.Errorf("%s still has %s", filepath.Base(dir), e.Name())
		}
	}
	if n := b.images.mounted(); n != 0 {
		b.t.Errorf("%d root file systems are still mounted", n)
	}
	if info, err := os.ReadFile("/proc/self/mountinfo"); err == nil && strings.Contains(string(info), filepath.Dir(b.runDir)) {
		b.t.Error("mounts of the test are left")
	}
	deadline := patience.Until(5 * time.Second)
	b.waitForMonitors(deadline)
	for _, dir := range []string{b.tree.Dir("memory", b.pods.pods["pod"].CgroupParent)} {
		for {
			entries, _ := os.ReadDir(dir)
			left := 0
			for _, e := range entries {
				if e.IsDir() {
					left++
				}
			}
			if left == 0 {
				break
			}
			if time.Now().After(deadline) {
				b.t.Errorf("%d cgroups are left in the cgroup of the pod", left)
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// waitForMonitors waits until the cgroup of the monitors has no process. A monitor exits shortly after the removal of
// its container has ended, and the spawner removes the cgroup only if it is empty.
func (b *testBed) waitForMonitors(deadline time.Time) {
	for {
		pids, err := b.tree.Pids(b.parent + "/monitors")
		// On cgroup v1, a thread of the spawner is in the cgroup.
		pids = slices.DeleteFunc(pids, func(pid int) bool { return pid == os.Getpid() })
		if len(pids) == 0 {
			if err != nil {
				b.t.Error(err)
			}
			return
		}
		if time.Now().After(deadline) {
			b.t.Errorf("the processes %v are left in the cgroup of the monitors", pids)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// shell returns the config of a container that runs a script.
func shell(name, script string) *cri.ContainerConfig {
	return &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: name}, Image: &cri.ImageSpec{Image: "busybox"},
		Command: []string{"/bin/sh", "-c", script}, LogPath: name + ".log",
		Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER},
		}},
	}
}

func (b *testBed) create(m *Manager, c *cri.ContainerConfig) string {
	b.t.Helper()
	id, err := m.Create(b.t.Context(), "pod", c, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return id
}

func (b *testBed) run(m *Manager, c *cri.ContainerConfig) string {
	b.t.Helper()
	id := b.create(m, c)
	if err := m.Start(b.t.Context(), id); err != nil {
		b.t.Fatal(err)
	}
	return id
}

// waitExit waits until the exit of a container is recorded.
func (b *testBed) waitExit(m *Manager, id string) *Snapshot {
	b.t.Helper()
	c, err := m.find(id)
	if err != nil {
		b.t.Fatal(err)
	}
	select {
	case <-c.exited:
	case <-time.After(patience.For(20 * time.Second)):
		b.t.Fatalf("the container has not exited: %+v", c.snap.Load())
	}
	return c.snap.Load()
}

// log waits until the log of a container contains the text.
func (b *testBed) log(name, want string) {
	b.t.Helper()
	var got []byte
	for end := patience.Until(5 * time.Second); time.Now().Before(end); {
		got, _ = os.ReadFile(filepath.Join(b.logs, name+".log"))
		if strings.Contains(string(got), want) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.t.Fatalf("the log of %s does not contain %q: %s", name, want, got)
}
