package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/criserver/criserver/oci/runtime"
)

// newScriptHandlers returns handlers whose runtimes are shell scripts.
func newScriptHandlers(t *testing.T, defaultName string, scripts map[string]string) *handlerSet {
	t.Helper()
	s := &handlerSet{defaultName: defaultName, runtimes: map[string]*runtime.Runtime{}, probers: map[string]*prober{}}
	dir := t.TempDir()
	for name, script := range scripts {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
		s.runtimes[name] = &runtime.Runtime{Name: name, Path: path, Root: dir}
		s.probers[name] = newProber(s.runtimes[name])
	}
	return s
}

// runtimeScript reports a version and features.
const runtimeScript = `case "$*" in
*--version*) echo runc version 1.4.0;;
*features*) echo '{"ociVersionMax":"1.2.0","mountOptions":["ro","noexec"],"linux":{}}';;
esac
`

// TestRequestsWaitForProbe checks that requests wait for the result of the first probe, and
// that the status is an error until then.
func TestRequestsWaitForProbe(t *testing.T) {
	s := newScriptHandlers(t, "slow", map[string]string{"slow": "sleep 0.5\n" + runtimeScript})
	if err := s.status(); !errdefs.IsUnavailable(err) {
		t.Errorf("before the probe: got status %v, want an Unavailable error", err)
	}
	if l := s.list(); len(l) != 2 || l[0].GetName() != "" || l[1].GetFeatures().GetUserNamespaces() {
		t.Errorf("before the probe: got handlers %v", l)
	}
	go s.run(t.Context(), func(context.Context, *runtime.Runtime, *features.Features, time.Duration) error { return nil })
	if got := s.mountOptions("slow"); len(got) != 2 {
		t.Errorf("got mount options %q, want ro and noexec", got)
	}
	if err := s.userNamespaceError(""); err != nil {
		t.Errorf("user namespaces: got %v", err)
	}
	if !s.mapsSubmounts("slow") {
		t.Error("a runtime for version 1.2 of the OCI specification does not map submounts")
	}
	if err := s.status(); err != nil {
		t.Errorf("after the probe: got status %v", err)
	}
	if l := s.list(); len(l) != 2 || !l[0].GetFeatures().GetUserNamespaces() || !l[1].GetFeatures().GetUserNamespaces() {
		t.Errorf("after the probe: got handlers %v", l)
	}
}

// TestProbeIsRepeatedAfterTimeout checks that a probe that timed out is repeated with more time.
func TestProbeIsRepeatedAfterTimeout(t *testing.T) {
	s := newScriptHandlers(t, "late", map[string]string{"late": runtimeScript})
	var timeouts []time.Duration
	s.run(t.Context(), func(_ context.Context, _ *runtime.Runtime, _ *features.Features, timeout time.Duration) error {
		timeouts = append(timeouts, timeout)
		if len(timeouts) == 1 {
			return context.DeadlineExceeded
		}
		return nil
	})
	if len(timeouts) != 2 || timeouts[1] != 2*timeouts[0] {
		t.Errorf("the tests had the timeouts %v, want two, of which the second is twice as long", timeouts)
	}
	if err := s.userNamespaceError("late"); err != nil {
		t.Errorf("after the second test: got %v", err)
	}
}

// TestProbeErrorIsFinal checks that a probe that failed without a timeout is not repeated,
// and that handlers do not depend on each other.
func TestProbeErrorIsFinal(t *testing.T) {
	s := newScriptHandlers(t, "good", map[string]string{"good": runtimeScript, "bad": "exit 1"})
	refusal := errors.New("not supported")
	tests := make(chan string, 10)
	s.run(t.Context(), func(_ context.Context, rt *runtime.Runtime, f *features.Features, _ time.Duration) error {
		tests <- rt.Name
		if f == nil {
			return refusal
		}
		return nil
	})
	if len(tests) != 2 {
		t.Errorf("got %d tests of two handlers, want 2", len(tests))
	}
	if err := s.userNamespaceError("bad"); !errors.Is(err, refusal) {
		t.Errorf("handler bad: got %v, want %v", err, refusal)
	}
	if err := s.userNamespaceError(""); err != nil {
		t.Errorf("handler good: got %v", err)
	}
	if options := s.mountOptions("bad"); options != nil {
		t.Errorf("a runtime that does not answer has the mount options %q", options)
	}
	info := s.info()
	if len(info) != 2 || info[0].Name != "bad" || info[0].Error == "" || info[0].NoUserNamespaces == "" || !info[1].Default || info[1].Version == "" {
		t.Errorf("got info %+v", info)
	}
}
