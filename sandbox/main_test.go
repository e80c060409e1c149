package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/patience"
	"github.com/criserver/criserver/sandbox/network"
	"github.com/criserver/criserver/sandbox/podspec"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// namespacesEnv is set in the process that runs the tests in its own namespaces.
const namespacesEnv = "CRISERVER_SANDBOX_TEST_INSIDE"

// TestMain runs the tests in their own network and mount namespaces if the user is root, so that
// they neither change nor leave bridges, nft rules and mounts of the machine.
func TestMain(m *testing.M) {
	logrus.SetOutput(io.Discard)
	if os.Getenv("CRISERVER_TEST_LOG") != "" {
		logrus.SetOutput(os.Stderr)
	}
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	if os.Getenv(namespacesEnv) == "" {
		os.Exit(rerun())
	}
	if err := enter(); err != nil {
		fmt.Fprintln(os.Stderr, "set up the namespaces of the test:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// rerun runs the test binary again, in new namespaces.
func rerun() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), namespacesEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the kernel sends Pdeathsig when the thread exits
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// enter prepares the new namespaces.
func enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	// The lock of iptables is on /run.
	if err := unix.Mount("run", "/run", "tmpfs", 0, ""); err != nil {
		return err
	}
	return exec.Command("ip", "link", "set", "lo", "up").Run()
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("namespaces and mounts need root")
	}
}

// fakeContainers records its calls and can fail or block.
type fakeContainers struct {
	mu      sync.Mutex
	stops   int
	removed []string
	stopErr error
	hold    chan struct{} // if not nil, StopPod waits until it is closed
}

func (f *fakeContainers) StopPod(ctx context.Context, _ string) error {
	f.mu.Lock()
	f.stops++
	hold, err := f.hold, f.stopErr
	f.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

func (f *fakeContainers) RemovePod(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removed = append(f.removed, id)
	return nil
}

// fakeCgroups counts the holds of each cgroup.
type fakeCgroups struct {
	mu    sync.Mutex
	held  map[string]int
	pids  map[string]int
	fails error
	read  int                     // number of reads of stats
	drop  func(path string) error // called by Remove and by the last Release, which ignores the error; or nil
}

func (f *fakeCgroups) Make(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fails != nil {
		return f.fails
	}
	if f.held == nil {
		f.held, f.pids = map[string]int{}, map[string]int{}
	}
	f.held[path]++
	return nil
}

func (f *fakeCgroups) Release(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held[path] > 0 {
		f.held[path]--
	}
	if f.held[path] == 0 {
		delete(f.held, path)
		if f.drop != nil {
			_ = f.drop(path)
		}
	}
}

func (f *fakeCgroups) Remove(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.drop != nil {
		return f.drop(path)
	}
	return nil
}

func (f *fakeCgroups) Add(path string, pid int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pids[path] = pid
	return nil
}

func (f *fakeCgroups) Stats(path string) (cgroup.Stats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.held[path] == 0 {
		return cgroup.Stats{}, fs.ErrNotExist
	}
	f.read++
	return cgroup.Stats{Time: time.Now(), CPUUsage: uint64(f.read) * 1000}, nil
}

func (f *fakeCgroups) Pids(path string) ([]int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return make([]int, len(f.pids)), nil
}

// bed is a testbed: the directories of a daemon, and the daemons that use them one after the other.
type bed struct {
	t          testing.TB
	cfg        Config
	containers *fakeContainers
	cgroups    *fakeCgroups
	stop       func()
}

// testNetNSDir is on the tmpfs that enter has mounted.
const testNetNSDir = "/run/netns"

// newBed returns a testbed with a CNI configuration and directories of CNI plugins.
func newBed(t testing.TB, conf string, bins ...string) *bed {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	b := &bed{t: t, containers: &fakeContainers{}, cgroups: &fakeCgroups{}}
	b.cfg = Config{
		RunDir:     filepath.Join(dir, "run"),
		CNI:        network.Config{ConfDirs: []string{filepath.Join(dir, "net.d")}, BinDirs: bins},
		Containers: b.containers,
		Cgroups:    b.cgroups,
		NetNSDir:   testNetNSDir,
	}
	if err := os.Mkdir(b.cfg.CNI.ConfDirs[0], 0o755); err != nil {
		t.Fatal(err)
	}
	if conf != "" {
		b.writeConf("10-test.conflist", conf)
	}
	t.Cleanup(b.checkClean)
	return b
}

func (b *bed) writeConf(name, conf string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.cfg.CNI.ConfDirs[0], name), []byte(conf), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// recovered returns a Manager after Recover and before Run.
func (b *bed) recovered() *Manager {
	b.t.Helper()
	*b.cgroups = fakeCgroups{} // the holds end with the process of a daemon
	m, err := New(b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := m.Recover(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	return m
}

// start returns a Manager whose Run is active until halt or the end of the test.
func (b *bed) start() *Manager {
	b.t.Helper()
	m := b.recovered()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	})
	b.t.Cleanup(b.stop)
	return m
}

// halt ends Run of the last Manager.
func (b *bed) halt() { b.stop() }

// halted returns a Manager whose Run has checked the network and has ended.
func (b *bed) halted() *Manager {
	b.t.Helper()
	m := b.start()
	awaitNetwork(b.t, m)
	b.halt()
	return m
}

// awaitNetwork waits until the checks of the network have ended.
func awaitNetwork(t testing.TB, m *Manager) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience.For(time.Minute))
	defer cancel()
	if err := m.net.WaitChecked(ctx); err != nil {
		t.Fatal(err)
	}
}

// checkClean fails the test if directories, mounts or cgroups of pods remain. The test must have removed its pods.
func (b *bed) checkClean() {
	for _, dir := range []string{"pods", "ns", "cni/results"} {
		entries, _ := os.ReadDir(filepath.Join(b.cfg.RunDir, dir))
		for _, e := range entries {
			b.t.Errorf("%s still has %s", dir, e.Name())
		}
	}
	names, _ := os.ReadDir(testNetNSDir)
	for _, e := range names {
		b.t.Errorf("%s still has %s", testNetNSDir, e.Name())
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		b.t.Error(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, b.cfg.RunDir) || strings.Contains(line, testNetNSDir+"/") {
			b.t.Errorf("mount remains: %s", line)
		}
	}
	b.cgroups.mu.Lock()
	defer b.cgroups.mu.Unlock()
	if len(b.cgroups.held) > 0 {
		b.t.Errorf("cgroups are still held: %v", b.cgroups.held)
	}
}

// podConfig returns a request for a pod whose containers have their own PID namespaces.
func podConfig(name string) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "default", Uid: "uid-" + name},
		Hostname: name,
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent: "/test",
			SecurityContext: &cri.LinuxSandboxSecurityContext{
				NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER},
			},
		},
	}
}

// hostPod returns a request for a pod with the network and IPC namespaces of the host.
func hostPod(name string) *cri.PodSandboxConfig {
	c := podConfig(name)
	o := c.Linux.SecurityContext.NamespaceOptions
	o.Network, o.Ipc = cri.NamespaceMode_NODE, cri.NamespaceMode_NODE
	return c
}

func unitManager(t *testing.T, change func(*Config)) *Manager {
	t.Helper()
	cfg := Config{
		RunDir: t.TempDir(), Containers: &fakeContainers{}, Cgroups: &fakeCgroups{}, PausePath: "/pause",
		KnownHandler: func(name string) bool { return name == "" || name == "runc" },
		HandlerNames: func() []string { return []string{"runc"} },
	}
	if change != nil {
		change(&cfg)
	}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// mustParse parses a request as RunPod does.
func mustParse(t testing.TB, m *Manager, c *cri.PodSandboxConfig) *podspec.Spec {
	t.Helper()
	spec, err := podspec.Parse(c, "", m.cfg.node())
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// mustRun runs a pod and returns its snapshot.
func mustRun(t testing.TB, m *Manager, c *cri.PodSandboxConfig) *Pod {
	t.Helper()
	id, err := m.RunPod(t.Context(), c, "")
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// mustRemove stops and removes pods.
func mustRemove(t testing.TB, m *Manager, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := m.Stop(t.Context(), id); err != nil {
			t.Error(err)
		}
		if err := m.Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

// eventually waits until ok returns true. what describes the event for the error message.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := patience.Until(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("timeout: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func mustJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// buildBinary compiles a program of this module.
func buildBinary(t testing.TB, pkg string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, b)
	}
	return out
}
