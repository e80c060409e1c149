package handlers

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/criserver/criserver/oci/runtime"
)

func noUserNSTest(context.Context, *runtime.Runtime, *features.Features, bool, time.Duration) error {
	return nil
}

// TestMergeHandlers changes the handlers twice: equal handlers keep their probers, removed handlers
// become former handlers, and a handler that returns is no longer a former one.
func TestMergeHandlers(t *testing.T) {
	path := func(name, path string) *runtime.Runtime { return &runtime.Runtime{Name: name, Path: path} }
	first := merge(map[string]*runtime.Runtime{"same": path("same", "/a"), "changed": path("changed", "/b"), "gone": path("gone", "/c")}, nil)
	first.defaultName = "same"
	if len(first.added) != 3 {
		t.Errorf("added at the start: %v, want all", first.added)
	}
	second := merge(map[string]*runtime.Runtime{"same": path("same", "/a"), "changed": path("changed", "/b2"), "new": path("new", "/d")}, first)
	if second.prober("same") != first.prober("same") || second.runtimes["same"] != first.runtimes["same"] {
		t.Error("an equal handler has another prober or runtime")
	}
	if second.prober("changed") == first.prober("changed") || len(second.added) != 2 || second.added["new"] == nil {
		t.Errorf("added: %v, want changed and new", second.added)
	}
	if second.Exists("gone") || second.FormerRuntimes()["gone"] == nil || second.prober("gone") != first.prober("gone") || len(second.former) != 1 {
		t.Errorf("former handlers %v, want gone", second.former)
	}
	if !second.keepDefault("", first) || second.defaultName != "same" || second.keepDefault("new", first) {
		t.Errorf("default handler %q, want the one of before unless another is configured", second.defaultName)
	}
	third := merge(map[string]*runtime.Runtime{"gone": path("gone", "/c")}, second)
	if len(third.former) != 3 || third.former["gone"] != nil || third.keepDefault("", second) {
		t.Errorf("former handlers %v, want all others", third.former)
	}
}

// TestProbeAdded checks that only the new handlers are probed, that the result has an error for a configured handler
// that does not answer, and that the next reload probes this handler again.
func TestProbeAdded(t *testing.T) {
	s := newScriptHandlers(t, "good", map[string]string{"good": runtimeScript, "bad": "exit 1", "builtin": "exit 1"})
	s.added = map[string]*prober{"bad": s.probers["bad"], "builtin": s.probers["builtin"]}
	unavailable, err := s.ProbeAdded(t.Context(), noUserNSTest, func(name string) bool { return name != "builtin" })
	if err != nil || len(unavailable) != 1 || unavailable[0].Name != "bad" || !strings.Contains(unavailable[0].Err.Error(), "not available") {
		t.Errorf("got %v, %v, want an error of the handler bad", unavailable, err)
	}
	if s.probers["good"].result.Load() != nil || s.probers["builtin"].result.Load() == nil {
		t.Error("the probes do not fit the new handlers")
	}
	s.probers["good"].probeOnce(t.Context(), noUserNSTest, probeTimeout)
	next := merge(maps.Clone(s.runtimes), s)
	if next.added["bad"] == nil || next.prober("bad") == s.prober("bad") || next.added["good"] != nil || next.prober("good") != s.prober("good") {
		t.Errorf("the next reload probes %v, want the handlers that did not answer", next.added)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.ProbeAdded(ctx, noUserNSTest, func(string) bool { return false }); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the caller: got %v", err)
	}
}

// TestCheckGuests checks that the type of a handler with ready pods cannot change.
func TestCheckGuests(t *testing.T) {
	handlers := func(guest bool, old *Set) *Set {
		s := merge(map[string]*runtime.Runtime{"a": {Name: "a", Path: "/a", Guest: guest}, "b": {Name: "b", Path: "/b"}}, old)
		s.defaultName = "b"
		return s
	}
	before := handlers(false, nil)
	changed := handlers(true, before)
	removed := merge(map[string]*runtime.Runtime{"b": {Name: "b", Path: "/b"}}, before)
	for name, tc := range map[string]struct {
		before, next *Set
		user         string // handler of a ready pod
		refused      bool
	}{
		"no change":           {before, handlers(false, before), "a", false},
		"other handler":       {before, changed, "b", false},
		"ready pod":           {before, changed, "a", true},
		"no pod":              {before, changed, "", false},
		"removed":             {before, removed, "a", false},
		"removed and changed": {removed, handlers(true, removed), "a", true},
	} {
		users := make(map[string]int)
		if tc.user != "" {
			users[tc.user] = 2
		}
		err := CheckGuests(tc.before, tc.next, users)
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
