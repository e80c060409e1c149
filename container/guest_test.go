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
	"github.com/criserver/criserver/oci/runtime"
)

// guestRuntime returns a fake runtime with guests, for errors that gVisor does not make on
// demand. calls returns the arguments of its calls.
func guestRuntime(t *testing.T, dir, script string) (r *runtime.Runtime, calls func() string) {
	t.Helper()
	path, log := filepath.Join(dir, "guestrt"), filepath.Join(dir, "calls")
	text := "#!/bin/sh\nshift 6\necho \"$@\" >>" + log + "\n" + script + "\n"
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	r = &runtime.Runtime{Name: "guestrt", Path: path, Root: filepath.Join(dir, "guestrt.d"), Guest: true}
	return r, func() string {
		b, err := os.ReadFile(log)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return string(b)
	}
}

// guestBed returns a manager with a pod that has the record of a guest.
func guestBed(t *testing.T, alter func(*guestRecord)) (b *testBed, m *Manager, podID string, calls func() string) {
	t.Helper()
	b = newTestBed(t)
	r, calls := guestRuntime(t, t.TempDir(), "")
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
	return b, m, podID, calls
}

// TestRecoverGuests checks that the recovery removes guests without a pod and guests whose
// creation was interrupted, and keeps running guests.
func TestRecoverGuests(t *testing.T) {
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		alter func(*guestRecord)
		noPod bool
		stays bool
		calls string // of the runtime
	}{
		"running":         {alter: func(g *guestRecord) { g.Process = self }, stays: true},
		"interrupted":     {alter: func(*guestRecord) {}, calls: "delete --force"},
		"without a pod":   {alter: func(g *guestRecord) { g.Process = proc.Ref{PID: 1 << 22, Start: 1} }, noPod: true, calls: "delete --force"},
		"before a reboot": {alter: func(g *guestRecord) { g.Boot = "another" }},
		"unreadable":      {alter: func(g *guestRecord) { g.Version = 99 }, stays: true},
	} {
		t.Run(name, func(t *testing.T) {
			b, m, podID, calls := guestBed(t, tc.alter)
			if tc.noPod {
				b.pods.mu.Lock()
				delete(b.pods.pods, podID)
				b.pods.mu.Unlock()
			}
			_, stop := b.manager()
			defer stop()
			if _, err := os.Stat(m.guestDir(podID)); errors.Is(err, fs.ErrNotExist) == tc.stays {
				t.Errorf("directory of the guest: %v", err)
			}
			if got := calls(); !strings.HasPrefix(got, tc.calls) || (got == "") != (tc.calls == "") {
				t.Errorf("calls of the runtime: %q", got)
			}
			if tc.stays { // checkLeaks would find the directory
				_ = os.RemoveAll(m.guestDir(podID))
			}
		})
	}
}

// TestGuestExit checks that the pod is not ready after the exit of its guest, and that the
// pod does not get another guest.
func TestGuestExit(t *testing.T) {
	guest := exec.Command("sleep", "1000")
	if err := guest.Start(); err != nil {
		t.Fatal(err)
	}
	ref, err := proc.Identify(guest.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	b, _, podID, calls := guestBed(t, func(g *guestRecord) { g.Process = ref })
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
		t.Fatal("the pod is not ready although its guest is running")
	}
	if err := guest.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for end := patience.Until(20 * time.Second); ready(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the pod is ready after the exit of its guest")
		}
	}
	p, _ := b.pods.Pod(podID)
	s := m.settings.Load()
	r := s.Runtimes[s.DefaultRuntime]
	if err := m.ensureGuest(t.Context(), m.settings.Load().Builder, p, &runtime.Runtime{Name: r.Name, Guest: true}); err == nil || !strings.Contains(err.Error(), "has exited, the pod must be created again") {
		t.Errorf("another guest: %v", err)
	}
	if err := m.StopPod(t.Context(), podID); err != nil {
		t.Error(err)
	}
	if got := calls(); !strings.Contains(got, "delete --force "+podID) {
		t.Errorf("calls of the runtime: %q", got)
	}
}

// TestOneGuestForAPod checks that containers that are created at the same time share a
// guest, and that a guest that does not start is removed and created again.
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
	r, calls := guestRuntime(t, dir, fmt.Sprintf(`
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
	if err := m.ensureGuest(t.Context(), m.settings.Load().Builder, p, r); err == nil || !strings.Contains(err.Error(), "no such platform") {
		t.Errorf("a guest that does not start: %v", err)
	}
	if _, err := os.Stat(m.guestDir(p.ID)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("directory of the guest: %v", err)
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := m.ensureGuest(t.Context(), m.settings.Load().Builder, p, r); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := strings.Count(calls(), "create "); n != 2 {
		t.Errorf("%d guests were created:\n%s", n, calls())
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
		t.Errorf("OCI config: %+v, %v", spec, err)
	}
	if err := m.removePodGuest(t.Context(), p.ID); err != nil {
		t.Error(err)
	}
	if err := m.removePodGuest(t.Context(), p.ID); err != nil {
		t.Errorf("second attempt: %v", err)
	}
}
