package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/container/record"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/patience"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/host"
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

// fakePod is the pod of a test.
type fakePod struct {
	exists, ready atomic.Bool
}

// noCgroups stands for cgroups that do not exist.
type noCgroups struct{}

func (noCgroups) Remove(string) error { return nil }

// testBed is a pod whose guests a fake runtime makes.
type testBed struct {
	t       *testing.T
	pod     fakePod
	podID   string
	cfg     Config
	builder *oci.Builder
}

func newTestBed(t *testing.T) *testBed {
	t.Helper()
	w, err := proc.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	tree, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}
	facts, err := host.Detect(tree)
	if err != nil {
		t.Fatal(err)
	}
	b := &testBed{t: t, podID: ids.New(), builder: oci.NewBuilder(facts, oci.Defaults{})}
	b.pod.exists.Store(true)
	b.pod.ready.Store(true)
	b.cfg = Config{
		Dir: filepath.Join(t.TempDir(), "guests"), Boot: "boot", Watcher: w, Cgroups: noCgroups{},
		FindPod: func(podID string) error {
			if podID != b.podID || !b.pod.exists.Load() {
				return fmt.Errorf("pod %q: %w", podID, errdefs.ErrNotFound)
			}
			return nil
		},
		MarkNotReady: func(string, string) { b.pod.ready.Store(false) },
		FindRuntime:  func(string) runtime.Runtime { return runtime.Runtime{} },
	}
	return b
}

// manager returns a Manager that has recovered the guests.
func (b *testBed) manager() *Manager {
	b.t.Helper()
	m := New(b.cfg)
	if err := m.Recover(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	return m
}

func (b *testBed) dir() string { return filepath.Join(b.cfg.Dir, b.podID) }

// recorded returns a testBed with the record of a guest.
func recorded(t *testing.T, alter func(*Record)) (b *testBed, calls func() string) {
	t.Helper()
	b = newTestBed(t)
	r, calls := guestRuntime(t, t.TempDir(), "")
	g := &Record{Version: record.Version, Boot: b.cfg.Boot, PodID: b.podID, Runtime: *r, CgroupPath: "/pod/guest"}
	alter(g)
	if err := os.MkdirAll(b.dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := g.write(b.dir()); err != nil {
		t.Fatal(err)
	}
	return b, calls
}

// TestRecover checks that the recovery removes guests without a pod and guests whose
// creation was interrupted, and keeps running guests.
func TestRecover(t *testing.T) {
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		alter func(*Record)
		noPod bool
		stays bool
		calls string // of the runtime
	}{
		"running":         {alter: func(g *Record) { g.Process = self }, stays: true},
		"interrupted":     {alter: func(*Record) {}, calls: "delete --force"},
		"without a pod":   {alter: func(g *Record) { g.Process = proc.Ref{PID: 1 << 22, Start: 1} }, noPod: true, calls: "delete --force"},
		"before a reboot": {alter: func(g *Record) { g.Boot = "another" }},
		"unreadable":      {alter: func(g *Record) { g.Version = 99 }, stays: true},
	} {
		t.Run(name, func(t *testing.T) {
			b, calls := recorded(t, tc.alter)
			b.pod.exists.Store(!tc.noPod)
			b.manager()
			if _, err := os.Stat(b.dir()); errors.Is(err, fs.ErrNotExist) == tc.stays {
				t.Errorf("directory of the guest: %v", err)
			}
			if got := calls(); !strings.HasPrefix(got, tc.calls) || (got == "") != (tc.calls == "") {
				t.Errorf("calls of the runtime: %q", got)
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
	b, calls := recorded(t, func(g *Record) { g.Process = ref })
	m := b.manager()
	if !b.pod.ready.Load() {
		t.Fatal("the pod is not ready although its guest is running")
	}
	if err := guest.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for end := patience.Until(20 * time.Second); b.pod.ready.Load(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the pod is ready after the exit of its guest")
		}
	}
	if err := m.Ensure(t.Context(), b.builder, Pod{ID: b.podID}, &runtime.Runtime{Guest: true}); err == nil || !strings.Contains(err.Error(), "has exited, the pod must be created again") {
		t.Errorf("another guest: %v", err)
	}
	if err := m.Remove(t.Context(), b.podID); err != nil {
		t.Error(err)
	}
	if got := calls(); !strings.Contains(got, "delete --force "+b.podID) {
		t.Errorf("calls of the runtime: %q", got)
	}
}

// TestOneGuestForAPod checks that containers that are created at the same time share a
// guest, and that a guest that does not start is removed and created again.
func TestOneGuestForAPod(t *testing.T) {
	b := newTestBed(t)
	m := b.manager()
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
	p := Pod{ID: b.podID, Hostname: "pod-host", CgroupParent: "/pod"}
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Ensure(t.Context(), b.builder, p, r); err == nil || !strings.Contains(err.Error(), "no such platform") {
		t.Errorf("a guest that does not start: %v", err)
	}
	if _, err := os.Stat(b.dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("directory of the guest: %v", err)
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := m.Ensure(t.Context(), b.builder, p, r); err != nil {
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
	raw, err := os.ReadFile(filepath.Join(b.dir(), record.ConfigFile))
	if err == nil {
		err = json.Unmarshal(raw, &spec)
	}
	if err != nil || spec.Hostname != "pod-host" || spec.Annotations["io.kubernetes.cri.container-type"] != "sandbox" {
		t.Errorf("OCI config: %+v, %v", spec, err)
	}
	if err := m.Remove(t.Context(), p.ID); err != nil {
		t.Error(err)
	}
	if err := m.Remove(t.Context(), p.ID); err != nil {
		t.Errorf("second attempt: %v", err)
	}
}

// TestUnreadableGuest checks that the guest of a pod can be removed if its record cannot be
// read.
func TestUnreadableGuest(t *testing.T) {
	var r runtime.Runtime
	b, calls := recorded(t, func(g *Record) { r = g.Runtime })
	b.cfg.FindRuntime = func(id string) runtime.Runtime {
		if id != b.podID {
			t.Errorf("look for the runtime of %q", id)
		}
		return r
	}
	for file, content := range map[string]string{filepath.Join(r.Root, b.podID+"_sandbox:"+b.podID+".state"): "{}", filepath.Join(b.dir(), File): ""} {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := New(b.cfg).Remove(t.Context(), b.podID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(b.dir()); err == nil {
		t.Error("the guest is left")
	}
	if want := "delete --force " + b.podID; !strings.Contains(calls(), want) {
		t.Errorf("calls of the runtime: %q, want %q", calls(), want)
	}
}
