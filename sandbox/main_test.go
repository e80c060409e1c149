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

// insideEnv marks the run of the tests in namespaces of their own.
const insideEnv = "CRISERVER_SANDBOX_TEST_INSIDE"

// TestMain runs the tests of root in their own network and mount namespaces, so
// that no bridge, rule or mount of the machine is touched or left behind.
func TestMain(m *testing.M) {
	logrus.SetOutput(io.Discard)
	if os.Getenv("CRISERVER_TEST_LOG") != "" {
		logrus.SetOutput(os.Stderr)
	}
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	if os.Getenv(insideEnv) == "" {
		os.Exit(rerun())
	}
	if err := enter(); err != nil {
		fmt.Fprintln(os.Stderr, "set up the namespaces of the test:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func rerun() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // Pdeathsig goes by the thread
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

func enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	// The lock of iptables is on /run. /sys shows the interfaces of whoever
	// mounts it.
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

// fakeContainers notes what it is asked for and fails on command.
type fakeContainers struct {
	mu      sync.Mutex
	stops   int
	removed []string
	stopErr error
	hold    chan struct{} // when set, StopPod waits for it
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

// fakeCgroups counts who holds what.
type fakeCgroups struct {
	mu    sync.Mutex
	held  map[string]int
	pids  map[string]int
	fails error
	read  int                     // times that figures were read
	drop  func(path string) error // called by Remove and, without its error, by the last Release
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

// bed is a directory of a daemon, and daemons in it one after the other.
type bed struct {
	t          testing.TB
	cfg        Config
	containers *fakeContainers
	cgroups    *fakeCgroups
	stop       func()
}

// newBed has CNI configuration conf and plugins in bins.
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
	}
	if err := os.Mkdir(b.cfg.CNI.ConfDirs[0], 0o755); err != nil {
		t.Fatal(err)
	}
	if conf != "" {
		b.writeConf("10-test.conflist", conf)
	}
	t.Cleanup(b.checkNothingLeft)
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
	*b.cgroups = fakeCgroups{} // who held what ended with the daemon before
	m, err := New(b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := m.Recover(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	return m
}

// start returns a Manager at work. halt, or the end of the test, ends it.
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

func (b *bed) halt() { b.stop() }

// halted returns a Manager that has checked the network and does nothing any more.
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

// checkNothingLeft runs when all pods of the test are removed.
func (b *bed) checkNothingLeft() {
	for _, dir := range []string{"pods", "ns", "cni/results"} {
		entries, _ := os.ReadDir(filepath.Join(b.cfg.RunDir, dir))
		for _, e := range entries {
			b.t.Errorf("left in %s: %s", dir, e.Name())
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		b.t.Error(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, b.cfg.RunDir) {
			b.t.Errorf("mount left: %s", line)
		}
	}
	b.cgroups.mu.Lock()
	defer b.cgroups.mu.Unlock()
	if len(b.cgroups.held) > 0 {
		b.t.Errorf("cgroups still held: %v", b.cgroups.held)
	}
}

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

// eventually waits for what happens in the background.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := patience.Until(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
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

// build compiles a program of testdata or elsewhere in this module.
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
