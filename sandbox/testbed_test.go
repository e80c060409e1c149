package sandbox

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/criserver/criserver/internal/patience"
	"github.com/criserver/criserver/sandbox/network"
)

// bed is a testbed: the directories of a daemon, and the daemons that use them one after the other.
type bed struct {
	t          testing.TB
	cfg        Config
	containers *fakeContainers
	cgroups    *fakeCgroups
	stop       func()
}

// testNetNSDir is on the tmpfs that package testns has mounted.
const testNetNSDir = "/run/netns"

// newBed returns a testbed with a CNI configuration and directories of CNI plugins.
func newBed(t testing.TB, conf string, bins ...string) *bed {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	b := &bed{t: t, containers: &fakeContainers{}, cgroups: &fakeCgroups{}}
	b.cfg = Config{
		RunDir:       filepath.Join(dir, "run"),
		CgroupDriver: Cgroupfs,
		CgroupParent: "/criserver",
		Settings: Settings{
			CNI:            network.Config{ConfDirs: []string{filepath.Join(dir, "net.d")}, BinDirs: bins},
			AllowedSysctls: allowedSysctls,
			ShmSize:        64 << 20,
		},
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
