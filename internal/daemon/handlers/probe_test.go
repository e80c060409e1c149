package handlers

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
func newScriptHandlers(t *testing.T, defaultName string, scripts map[string]string) *Set {
	t.Helper()
	s := &Set{defaultName: defaultName, runtimes: map[string]*runtime.Runtime{}, probers: map[string]*prober{}}
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
	if err := s.Status(); !errdefs.IsUnavailable(err) {
		t.Errorf("before the probe: got status %v, want an Unavailable error", err)
	}
	if l := s.List(); len(l) != 2 || l[0].GetName() != "" || l[1].GetFeatures().GetUserNamespaces() {
		t.Errorf("before the probe: got handlers %v", l)
	}
	go s.Probe(t.Context(), func(context.Context, *runtime.Runtime, *features.Features, bool, time.Duration) error { return nil })
	if got := s.MountOptions("slow"); len(got) != 2 {
		t.Errorf("got mount options %q, want ro and noexec", got)
	}
	if err := s.UserNamespaceError(""); err != nil {
		t.Errorf("user namespaces: got %v", err)
	}
	if !s.MapsSubmounts("slow") {
		t.Error("a runtime for version 1.2 of the OCI specification does not map submounts")
	}
	if err := s.Status(); err != nil {
		t.Errorf("after the probe: got status %v", err)
	}
	if l := s.List(); len(l) != 2 || !l[0].GetFeatures().GetUserNamespaces() || !l[1].GetFeatures().GetUserNamespaces() {
		t.Errorf("after the probe: got handlers %v", l)
	}
}

// TestProbeIsRepeatedAfterTimeout checks that a probe that timed out is repeated with more time.
func TestProbeIsRepeatedAfterTimeout(t *testing.T) {
	s := newScriptHandlers(t, "late", map[string]string{"late": runtimeScript})
	var timeouts []time.Duration
	s.Probe(t.Context(), func(_ context.Context, _ *runtime.Runtime, _ *features.Features, hostNetwork bool, timeout time.Duration) error {
		if hostNetwork {
			return nil
		}
		timeouts = append(timeouts, timeout)
		if len(timeouts) == 1 {
			return context.DeadlineExceeded
		}
		return nil
	})
	if len(timeouts) != 2 || timeouts[1] != 2*timeouts[0] {
		t.Errorf("the tests had the timeouts %v, want two, of which the second is twice as long", timeouts)
	}
	if err := s.UserNamespaceError("late"); err != nil {
		t.Errorf("after the second test: got %v", err)
	}
}

// TestProbeErrorIsFinal checks that a probe that failed without a timeout is not repeated,
// and that handlers do not depend on each other.
func TestProbeErrorIsFinal(t *testing.T) {
	s := newScriptHandlers(t, "good", map[string]string{"good": runtimeScript, "bad": "exit 1"})
	refusal := errors.New("not supported")
	tests := make(chan string, 10)
	s.Probe(t.Context(), func(_ context.Context, rt *runtime.Runtime, f *features.Features, hostNetwork bool, _ time.Duration) error {
		if hostNetwork {
			return nil
		}
		tests <- rt.Name
		if f == nil {
			return refusal
		}
		return nil
	})
	if len(tests) != 2 {
		t.Errorf("got %d tests of two handlers, want 2", len(tests))
	}
	if err := s.UserNamespaceError("bad"); !errors.Is(err, refusal) {
		t.Errorf("handler bad: got %v, want %v", err, refusal)
	}
	if err := s.UserNamespaceError(""); err != nil {
		t.Errorf("handler good: got %v", err)
	}
	if options := s.MountOptions("bad"); options != nil {
		t.Errorf("a runtime that does not answer has the mount options %q", options)
	}
	info := s.Info()
	if len(info) != 2 || info[0].Name != "bad" || info[0].Error == "" || info[0].NoUserNamespaces == "" || !info[1].Default || info[1].Version == "" {
		t.Errorf("got info %+v", info)
	}
}

// TestHostNetworkUserNamespaces checks that the feature for pods with a user namespace and the network of the host
// is reported only if it works with all handlers that support user namespaces.
func TestHostNetworkUserNamespaces(t *testing.T) {
	refusal := errors.New("not supported")
	for _, tt := range []struct {
		name        string
		userNS      map[string]error
		hostNetwork map[string]error
		want        bool
	}{
		{"both work with all", nil, nil, true},
		{"one has no user namespaces", map[string]error{"b": refusal}, nil, true},
		{"none has user namespaces", map[string]error{"a": refusal, "b": refusal}, nil, false},
		{"one does not work", nil, map[string]error{"b": refusal}, false},
		{"the one with user namespaces does not work", map[string]error{"b": refusal}, map[string]error{"a": refusal}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScriptHandlers(t, "a", map[string]string{"a": runtimeScript, "b": runtimeScript})
			if s.RuntimeFeatures().GetUserNamespacesHostNetwork() {
				t.Error("the feature is reported before the probe")
			}
			s.Probe(t.Context(), func(_ context.Context, rt *runtime.Runtime, _ *features.Features, hostNetwork bool, _ time.Duration) error {
				if hostNetwork {
					return tt.hostNetwork[rt.Name]
				}
				return tt.userNS[rt.Name]
			})
			if got := s.RuntimeFeatures().GetUserNamespacesHostNetwork(); got != tt.want {
				t.Errorf("feature is %t, want %t", got, tt.want)
			}
			for _, name := range []string{"a", "b"} {
				err := s.HostNetworkUserNSError(name)
				if failed := tt.userNS[name] != nil || tt.hostNetwork[name] != nil; failed != errors.Is(err, refusal) {
					t.Errorf("handler %s: got %v, want an error: %t", name, err, failed)
				}
			}
			for _, info := range s.Info() {
				if (info.NoHostNetworkUserNamespaces != "") != (tt.userNS[info.Name] == nil && tt.hostNetwork[info.Name] != nil) {
					t.Errorf("got info %+v", info)
				}
			}
		})
	}
}
