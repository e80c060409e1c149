package daemon

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/oci/runtime"
	"github.com/criserver/criserver/sandbox"
	"github.com/criserver/criserver/server/admin"
)

func noUserNSTest(context.Context, *runtime.Runtime, *features.Features, bool, time.Duration) error {
	return nil
}

// TestMergeHandlers changes the handlers twice: equal handlers keep their probers, removed handlers
// become former handlers, and a handler that returns is no longer a former one.
func TestMergeHandlers(t *testing.T) {
	path := func(name, path string) *runtime.Runtime { return &runtime.Runtime{Name: name, Path: path} }
	first := mergeHandlers(map[string]*runtime.Runtime{"same": path("same", "/a"), "changed": path("changed", "/b"), "gone": path("gone", "/c")}, nil)
	first.defaultName = "same"
	if len(first.added) != 3 {
		t.Errorf("added at the start: %v, want all", first.added)
	}
	second := mergeHandlers(map[string]*runtime.Runtime{"same": path("same", "/a"), "changed": path("changed", "/b2"), "new": path("new", "/d")}, first)
	if second.prober("same") != first.prober("same") || second.runtimes["same"] != first.runtimes["same"] {
		t.Error("an equal handler has another prober or runtime")
	}
	if second.prober("changed") == first.prober("changed") || len(second.added) != 2 || second.added["new"] == nil {
		t.Errorf("added: %v, want changed and new", second.added)
	}
	if second.exists("gone") || second.formerRuntimes()["gone"] == nil || second.prober("gone") != first.prober("gone") || len(second.former) != 1 {
		t.Errorf("former handlers %v, want gone", second.former)
	}
	if !second.keepDefault("", first) || second.defaultName != "same" || second.keepDefault("new", first) {
		t.Errorf("default handler %q, want the one of before unless another is configured", second.defaultName)
	}
	third := mergeHandlers(map[string]*runtime.Runtime{"gone": path("gone", "/c")}, second)
	if len(third.former) != 3 || third.former["gone"] != nil || third.keepDefault("", second) {
		t.Errorf("former handlers %v, want all others", third.former)
	}
}

// TestProbeAdded checks that only the new handlers are probed, that the result has an error for a configured handler
// that does not answer, and that the next reload probes this handler again.
func TestProbeAdded(t *testing.T) {
	s := newScriptHandlers(t, "good", map[string]string{"good": runtimeScript, "bad": "exit 1", "builtin": "exit 1"})
	s.added = map[string]*prober{"bad": s.probers["bad"], "builtin": s.probers["builtin"]}
	unavailable, err := s.probeAdded(t.Context(), noUserNSTest, func(name string) bool { return name != "builtin" })
	if err != nil || len(unavailable) != 1 || unavailable[0].Key != "runtimes.bad.path" || !strings.Contains(unavailable[0].Err.Error(), "not available") {
		t.Errorf("got %v, %v, want an error that names the key of the handler", unavailable, err)
	}
	if s.probers["good"].result.Load() != nil || s.probers["builtin"].result.Load() == nil {
		t.Error("the probes do not fit the new handlers")
	}
	s.probers["good"].probeOnce(t.Context(), noUserNSTest, probeTimeout)
	next := mergeHandlers(maps.Clone(s.runtimes), s)
	if next.added["bad"] == nil || next.prober("bad") == s.prober("bad") || next.added["good"] != nil || next.prober("good") != s.prober("good") {
		t.Errorf("the next reload probes %v, want the handlers that did not answer", next.added)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.probeAdded(ctx, noUserNSTest, func(string) bool { return false }); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the caller: got %v", err)
	}
}

// TestCheckGuests checks that the type of a handler with ready pods cannot change.
func TestCheckGuests(t *testing.T) {
	handlers := func(guest bool, old *handlerSet) *handlerSet {
		s := mergeHandlers(map[string]*runtime.Runtime{"a": {Name: "a", Path: "/a", Guest: guest}, "b": {Name: "b", Path: "/b"}}, old)
		s.defaultName = "b"
		return s
	}
	pod := func(handler, defaultHandler string, ready bool) *sandbox.Pod {
		return &sandbox.Pod{RuntimeHandler: handler, DefaultHandler: defaultHandler, Ready: ready}
	}
	before := handlers(false, nil)
	changed := handlers(true, before)
	removed := mergeHandlers(map[string]*runtime.Runtime{"b": {Name: "b", Path: "/b"}}, before)
	for name, tc := range map[string]struct {
		before, next *handlerSet
		pod          *sandbox.Pod
		refused      bool
	}{
		"no change":           {before, handlers(false, before), pod("a", "", true), false},
		"other handler":       {before, changed, pod("b", "", true), false},
		"default handler":     {before, changed, pod("", "b", true), false},
		"ready pod":           {before, changed, pod("a", "", true), true},
		"was the default":     {before, changed, pod("", "a", true), true},
		"stopped pod":         {before, changed, pod("a", "", false), false},
		"removed":             {before, removed, pod("a", "", true), false},
		"removed and changed": {removed, handlers(true, removed), pod("a", "", true), true},
	} {
		err := checkGuests(tc.before, tc.next, []*sandbox.Pod{tc.pod})
		if (err != nil) != tc.refused || err != nil && !strings.Contains(err.Error(), "runtimes.a.type: ") {
			t.Errorf("%s: got %v, want refused: %t", name, err, tc.refused)
		}
	}
}

func TestSerialTests(t *testing.T) {
	p, running := newProbes(), make(chan struct{}, 2)
	release := make(chan struct{})
	test := p.serial(func(context.Context, *runtime.Runtime, *features.Features, bool, time.Duration) error {
		running <- struct{}{}
		<-release
		return nil
	})
	done := make(chan error, 1)
	go func() { done <- test(t.Context(), nil, nil, false, 0) }()
	<-running
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := test(ctx, nil, nil, false, 0); !errors.Is(err, context.DeadlineExceeded) || len(running) > 0 {
		t.Errorf("second test: got %v, want a timeout before it begins", err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestReloadsAreSerial checks that a reload waits for another one, and that the end of the daemon
// cancels the running reload and refuses others.
func TestReloadsAreSerial(t *testing.T) {
	r := newReloads()
	r.begin(t.Context(), nil)
	ctx, unlock, err := r.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, _, err := r.lock(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("lock during a reload: got %v", err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); r.end() }()
	<-ctx.Done()
	select {
	case <-ended:
		t.Error("the end did not wait for the reload")
	default:
	}
	if _, _, err := r.lock(t.Context()); !errdefs.IsUnavailable(err) {
		t.Errorf("lock after the end: got %v, want ErrUnavailable", err)
	}
	unlock()
	<-ended
}

func TestReloadDuringStart(t *testing.T) {
	p := &parts{reloads: newReloads()}
	if _, err := p.Reload(t.Context()); !errdefs.IsUnavailable(err) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := New(Config{}).Reload(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("daemon that does not run: got %v", err)
	}
}

func TestReloadResult(t *testing.T) {
	got := reloadResult([]config.Change{{Key: "root", Old: "a", New: "b", Restart: true}, {Key: "log_level", Old: "c", New: "d"}, {Key: "image.pinned"}})
	if !slices.Equal(got.NeedRestart, []admin.SettingChange{{Key: "root", Old: "a", New: "b"}}) ||
		!slices.Equal(got.Changed, []admin.SettingChange{{Key: "image.pinned"}, {Key: "log_level", Old: "c", New: "d"}}) {
		t.Errorf("got %+v", got)
	}
}

func TestNotifyReload(t *testing.T) {
	c := listenNotify(t)
	m := serviceManager{socket: c.LocalAddr().String()}
	receive := func() string {
		b := make([]byte, 4096)
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	m.notifyReloading()
	if got := receive(); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") || strings.HasSuffix(got, "=0") {
		t.Errorf("got %q", got)
	}
	m.notifyReloaded(errors.New("first line\nsecond line"))
	if got := receive(); got != "READY=1\nSTATUS=The configuration was not reloaded: first line" {
		t.Errorf("got %q", got)
	}
	m.notifyReloaded(nil)
	if got := receive(); got != "READY=1\nSTATUS=" {
		t.Errorf("got %q", got)
	}
}

// TestWriteStacks checks that the stacks are complete, and that only the newest files are kept.
func TestWriteStacks(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "stacks")
	var last string
	for range keptStacks + 3 {
		file, err := writeStacks(dir, allStacks())
		if err != nil {
			t.Fatal(err)
		}
		if file <= last {
			t.Errorf("file %s is not after %s", file, last)
		}
		last = file
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != keptStacks || files[keptStacks-1] != last {
		t.Errorf("files %v, %v; want %d with the last one", files, err, keptStacks)
	}
	if b, err := os.ReadFile(last); err != nil || !strings.Contains(string(b), "TestWriteStacks") {
		t.Errorf("stacks %q, %v", b, err)
	}
}
