package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/patience"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/oci"
)

// guestRuntime stands in for gVisor where that has to fail, or was cut off: it
// writes down what it is asked.
func guestRuntime(t *testing.T, dir, script string) (r *oci.Runtime, asked func() string) {
	t.Helper()
	path, log := filepath.Join(dir, "guestrt"), filepath.Join(dir, "asked")
	text := "#!/bin/sh\nshift 6\necho \"$@\" >>" + log + "\n" + script + "\n"
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	r = &oci.Runtime{Name: "guestrt", Path: path, Root: filepath.Join(dir, "guestrt.d"), Guest: true}
	return r, func() string {
		b, err := os.ReadFile(log)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return string(b)
	}
}

// guestBed is a manager's directory with a pod, which has a guest on record.
func guestBed(t *testing.T, alter func(*guestRecord)) (b *testBed, m *Manager, podID string, asked func() string) {
	t.Helper()
	b = newTestBed(t)
	r, asked := guestRuntime(t, t.TempDir(), "")
	podID = ids.New()
	m, stop := b.manager()
	stop()
	b.pods.mu.Lock()
	p := b.pods.pods["pod"]
	p.ID = podID
	b.pods.pods[podID] = p
	b.pods.mu.Unlock()
	g := &guestRecord{Version: recordVersion, Boot: m.boot, PodID: podID, Runtime: *r, CgroupPath: b.parent + "/pod/guest"}
	alter(g)
	if err := os.MkdirAll(m.guestDir(podID), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := g.write(m.guestDir(podID)); err != nil {
		t.Fatal(err)
	}
	return b, m, podID, asked
}

// A guest that nobody needs, or that was never finished, goes when the daemon
// starts; one that runs stays.
func TestRestoreOfGuests(t *testing.T) {
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		alter func(*guestRecord)
		noPod bool
		stays bool
		asks  string // of the runtime
	}{
		"runs":         {alter: func(g *guestRecord) { g.Process = self }, stays: true},
		"cut off":      {alter: func(*guestRecord) {}, asks: "delete --force"},
		"of no pod":    {alter: func(g *guestRecord) { g.Process = proc.Ref{PID: 1 << 22, Start: 1} }, noPod: true, asks: "delete --force"},
		"before boot":  {alter: func(g *guestRecord) { g.Boot = "another" }},
		"not readable": {alter: func(g *guestRecord) { g.Version = 99 }, stays: true},
	} {
		t.Run(name, func(t *testing.T) {
			b, m, podID, asked := guestBed(t, tc.alter)
			if tc.noPod {
				b.pods.mu.Lock()
				delete(b.pods.pods, podID)
				b.pods.mu.Unlock()
			}
			_, stop := b.manager()
			defer stop()
			if _, err := os.Stat(m.guestDir(podID)); errors.Is(err, fs.ErrNotExist) == tc.stays {
				t.Errorf("its directory: %v", err)
			}
			if got := asked(); !strings.HasPrefix(got, tc.asks) || (got == "") != (tc.asks == "") {
				t.Errorf("the runtime was asked for %q", got)
			}
			if tc.stays { // or the search for leaks finds it
				_ = os.RemoveAll(m.guestDir(podID))
			}
		})
	}
}

// When the guest's process ends, its pod is lost, and no other guest is made.
func TestAGuestThatEndsLosesItsPod(t *testing.T) {
	guest := exec.Command("sleep", "1000")
	if err := guest.Start(); err != nil {
		t.Fatal(err)
	}
	ref, err := proc.Identify(guest.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	b, _, podID, asked := guestBed(t, func(g *guestRecord) { g.Process = ref })
	m, stop := b.manager()
	defer stop()
	ready := func() bool {
		p, err := b.pods.Pod(podID)
		if err != nil {
			t.Fatal(err)
		}
		return p.Ready
	}
	if !ready() {
		t.Fatal("the pod is lost while its guest runs")
	}
	if err := guest.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for end := patience.Until(20 * time.Second); ready(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the pod is still ready")
		}
	}
	p, _ := b.pods.Pod(podID)
	r := m.cfg.Runtimes[m.cfg.DefaultRuntime]
	if err := m.ensureGuest(t.Context(), p, &oci.Runtime{Name: r.Name, Guest: true}); err == nil || !strings.Contains(err.Error(), "has exited, the pod must be created again") {
		t.Errorf("another guest: %v", err)
	}
	if err := m.StopPod(t.Context(), podID); err != nil {
		t.Error(err)
	}
	if got := asked(); !strings.Contains(got, "delete --force "+podID) {
		t.Errorf("the runtime was asked for %q", got)
	}
}

// Containers that are created at once get one guest; one that does not start is
// taken back, with the runtime's words, and tried again.
func TestOneGuestForAPod(t *testing.T) {
	b := newTestBed(t)
	m, stop := b.manager()
	defer stop()
	dir := t.TempDir()
	sleeper := exec.Command("sleep", "1000")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = sleeper.Process.Kill(), sleeper.Wait() }()
	broken := filepath.Join(dir, "broken")
	r, asked := guestRuntime(t, dir, fmt.Sprintf(`
case $1 in
create) test -s $3/config.json && echo %d >$5;;
start) if test -e %s; then echo '{"level":"error","msg":"no such platform"}' >&3; exit 1; fi;;
esac`, sleeper.Process.Pid, broken))
	p, err := b.pods.Pod("pod")
	if err != nil {
		t.Fatal(err)
	}
	p.ID = ids.New()
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.ensureGuest(t.Context(), p, r); err == nil || !strings.Contains(err.Error(), "no such platform") {
		t.Errorf("a guest that does not start: %v", err)
	}
	if _, err := os.Stat(m.guestDir(p.ID)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it leaves its directory: %v", err)
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := m.ensureGuest(t.Context(), p, r); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := strings.Count(asked(), "create "); n != 2 {
		t.Errorf("%d guests were made:\n%s", n, asked())
	}
	var spec struct {
		Hostname    string
		Annotations map[string]string
	}
	raw, err := os.ReadFile(filepath.Join(m.guestDir(p.ID), configFile))
	if err == nil {
		err = json.Unmarshal(raw, &spec)
	}
	if err != nil || spec.Hostname != "pod-host" || spec.Annotations["io.kubernetes.cri.container-type"] != "sandbox" {
		t.Errorf("config: %+v, %v", spec, err)
	}
	if err := m.removePodGuest(t.Context(), p.ID); err != nil {
		t.Error(err)
	}
	if err := m.removePodGuest(t.Context(), p.ID); err != nil {
		t.Errorf("again: %v", err)
	}
}
