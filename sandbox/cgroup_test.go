package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/criserver/criserver/internal/systemd"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fakeUnits has slices and records its calls.
type fakeUnits struct {
	mu      sync.Mutex
	scopes  []systemd.Scope
	slices  []string
	stopped []string
	fails   error
}

func (f *fakeUnits) StartScope(_ context.Context, s systemd.Scope) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fails != nil {
		return f.fails
	}
	f.scopes, f.slices = append(f.scopes, s), append(f.slices, s.Slice)
	return nil
}

func (f *fakeUnits) Stop(_ context.Context, unit string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fails != nil {
		return f.fails
	}
	f.stopped = append(f.stopped, unit)
	f.slices = slices.DeleteFunc(f.slices, func(s string) bool { return s == unit })
	return nil
}

func (f *fakeUnits) List(_ context.Context, pattern string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, s := range f.slices {
		if ok, _ := filepath.Match(pattern, s); ok {
			out = append(out, s)
		}
	}
	return out, f.fails
}

func (f *fakeUnits) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails = err
}

func (f *fakeUnits) stops() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.stopped)
}

// systemdBed returns a testbed with the systemd driver.
func systemdBed(t *testing.T) (*bed, *fakeUnits) {
	t.Helper()
	b := newBed(t, "")
	units := &fakeUnits{}
	b.cfg.CgroupDriver, b.cfg.CgroupParent, b.cfg.Units = Systemd, "criserver.slice", units
	b.cfg.PausePath = buildBinary(t, "../cmd/conmon")
	return b, units
}

func sharedPIDPod(name, parent string) *cri.PodSandboxConfig {
	c := hostPod(name)
	c.Linux.CgroupParent = parent
	c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
	return c
}

// TestSliceOfPod checks that the daemon stops the slice that it chose for a pod, and no other slice.
func TestSliceOfPod(t *testing.T) {
	b, units := systemdBed(t)
	m := b.start()
	const kubelets = "kubepods-besteffort-pod1.slice"
	daemonPod, kubelet := mustRun(t, m, sharedPIDPod("daemon", "")), mustRun(t, m, sharedPIDPod("kubelet", kubelets))
	slice := "criserver-pod" + daemonPod.ID + ".slice"
	want := []systemd.Scope{
		{Name: "criserver-pause-" + daemonPod.ID + ".scope", Slice: slice, Description: "pause of pod " + daemonPod.ID, PID: daemonPod.PausePID},
		{Name: "criserver-pause-" + kubelet.ID + ".scope", Slice: kubelets, Description: "pause of pod " + kubelet.ID, PID: kubelet.PausePID},
	}
	if !slices.Equal(units.scopes, want) {
		t.Errorf("got scopes %v", units.scopes)
	}
	if daemonPod.PauseUnit != want[0].Name || len(b.cgroups.pids) > 0 {
		t.Errorf("got pause unit %q, processes in cgroups %v", daemonPod.PauseUnit, b.cgroups.pids)
	}
	if err := m.Stop(t.Context(), daemonPod.ID); err != nil || len(units.stops()) > 0 {
		t.Errorf("stop: got error %v and stopped units %v", err, units.stops())
	}

	// If the slice cannot be stopped, the pod stays visible, so that the client can retry.
	units.fail(errors.New("no answer"))
	if err := m.Remove(t.Context(), daemonPod.ID); err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("remove: got error %v", err)
	}
	if _, err := m.Get(daemonPod.ID); err != nil {
		t.Error(err)
	}
	units.fail(nil)
	mustRemove(t, m, daemonPod.ID, kubelet.ID)
	if got := units.stops(); !slices.Equal(got, []string{slice}) {
		t.Errorf("got stopped units %v", got)
	}
}

func TestOrphanedSlicesAreStopped(t *testing.T) {
	b, units := systemdBed(t)
	m := b.start()
	p := mustRun(t, m, sharedPIDPod("a", ""))
	b.halt()
	orphan := "criserver-pod" + strings.Repeat("ab", 32) + ".slice"
	units.slices = append(units.slices, orphan, "criserver-podcast.slice", "kubepods-pod"+strings.Repeat("ab", 32)+".slice")
	m = b.start()
	eventually(t, "stop of the slice", func() bool { return len(units.stops()) > 0 })
	mustRemove(t, m, p.ID)
	b.halt()
	if got := units.stops(); !slices.Equal(got, []string{orphan, "criserver-pod" + p.ID + ".slice"}) {
		t.Errorf("got stopped units %v", got)
	}

	// A slice with a process is in use.
	units.slices = append(units.slices, orphan)
	m = b.recovered()
	b.cgroups.pids = map[string]int{"/criserver.slice/" + orphan: 1}
	m.stopOrphanedSlices(t.Context())
	if got := units.stops(); len(got) != 2 {
		t.Errorf("got stopped units %v", got)
	}
	b.cgroups.pids = nil
}

// TestRollbackAfterFailedScope checks that the pause is stopped if systemd does not create its scope.
func TestRollbackAfterFailedScope(t *testing.T) {
	b, units := systemdBed(t)
	m := b.start()
	units.fail(errors.New("no answer"))
	_, err := m.RunPod(t.Context(), sharedPIDPod("a", "kubepods-pod1.slice"), "")
	if err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Fatalf("run: got error %v", err)
	}
	eventually(t, "removal of the pod directory", func() bool {
		entries, _ := os.ReadDir(filepath.Join(b.cfg.RunDir, "pods"))
		return len(entries) == 0
	})
}

func TestSystemdDriverNeedsUnits(t *testing.T) {
	_, err := New(Config{RunDir: "/run", Containers: &fakeContainers{}, Cgroups: &fakeCgroups{}, CgroupDriver: Systemd, CgroupParent: "criserver.slice"})
	if err == nil || !strings.Contains(err.Error(), "units must be set") {
		t.Errorf("got error %v", err)
	}
}

func TestCgroupOfPod(t *testing.T) {
	const id = "0123456789abcdef"
	for _, tt := range []struct {
		driver                CgroupDriver
		configured, requested string
		wantParent, wantPath  string
	}{
		{Cgroupfs, "/criserver", "", "/criserver/pod-" + id, "/criserver/pod-" + id},
		{Cgroupfs, "/criserver", "/kubepods/burstable/pod1", "/kubepods/burstable/pod1", "/kubepods/burstable/pod1"},
		{Systemd, "criserver.slice", "", "criserver-pod" + id + ".slice", "/criserver.slice/criserver-pod" + id + ".slice"},
		{Systemd, "criserver.slice", "kubepods-burstable-pod1_2.slice", "kubepods-burstable-pod1_2.slice", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice"},
	} {
		cfg := Config{CgroupDriver: tt.driver, CgroupParent: tt.configured}
		if got := cfg.cgroupParent(id, tt.requested); got != tt.wantParent || cgroupPath(got) != tt.wantPath {
			t.Errorf("%s %q: got parent %q at %q", tt.driver, tt.requested, got, cgroupPath(got))
		}
	}
}
