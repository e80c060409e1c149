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

	"github.com/criserver/criserver/oci"
)

// probed returns handlers whose runtimes are shell scripts.
func probed(t *testing.T, defaultName string, scripts map[string]string) *runtimes {
	t.Helper()
	r := &runtimes{defaultName: defaultName, byName: map[string]*oci.Runtime{}, probers: map[string]*prober{}}
	dir := t.TempDir()
	for name, script := range scripts {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
		r.byName[name] = &oci.Runtime{Name: name, Path: path, Root: dir}
		r.probers[name] = &prober{rt: r.byName[name], first: make(chan struct{})}
	}
	return r
}

// answers is a runtime that knows everything.
const answers = `case "$*" in
*--version*) echo runc version 1.4.0;;
*features*) echo '{"ociVersionMax":"1.2.0","mountOptions":["ro","noexec"],"linux":{}}';;
esac
`

// TestRequestsWaitForTheProbe checks that the answer to a request is the same on a
// slow machine, and that the daemon is not ready before.
func TestRequestsWaitForTheProbe(t *testing.T) {
	r := probed(t, "slow", map[string]string{"slow": "sleep 0.5\n" + answers})
	if err := r.status(); !errdefs.IsUnavailable(err) {
		t.Errorf("before the probe: %v", err)
	}
	if l := r.list(); len(l) != 2 || l[0].GetName() != "" || l[1].GetFeatures().GetUserNamespaces() {
		t.Errorf("before the probe: %v", l)
	}
	go r.run(t.Context(), func(context.Context, *oci.Runtime, *features.Features, time.Duration) error { return nil })
	if got := r.mountOptions("slow"); len(got) != 2 {
		t.Errorf("mount options %q", got)
	}
	if err := r.userNamespaces(""); err != nil {
		t.Error(err)
	}
	if !r.mapsSubmounts("slow") {
		t.Error("the version of the config is not known")
	}
	if err := r.status(); err != nil {
		t.Error(err)
	}
	if l := r.list(); len(l) != 2 || !l[0].GetFeatures().GetUserNamespaces() || !l[1].GetFeatures().GetUserNamespaces() {
		t.Errorf("after the probe: %v", l)
	}
}

// TestALateTrialIsTriedAgain checks that a missed deadline is no final answer.
func TestALateTrialIsTriedAgain(t *testing.T) {
	r := probed(t, "late", map[string]string{"late": answers})
	var given []time.Duration
	r.run(t.Context(), func(_ context.Context, _ *oci.Runtime, _ *features.Features, within time.Duration) error {
		given = append(given, within)
		if len(given) == 1 {
			return context.DeadlineExceeded
		}
		return nil
	})
	if len(given) != 2 || given[1] != 2*given[0] {
		t.Errorf("the trials had %v", given)
	}
	if err := r.userNamespaces("late"); err != nil {
		t.Errorf("after the second trial: %v", err)
	}
}

// TestARefusalIsFinal checks that only a missed deadline leads to another trial,
// and that one handler does not depend on another.
func TestARefusalIsFinal(t *testing.T) {
	r := probed(t, "good", map[string]string{"good": answers, "bad": "exit 1"})
	refusal := errors.New("the kernel cannot do it")
	tries := make(chan string, 10)
	r.run(t.Context(), func(_ context.Context, rt *oci.Runtime, f *features.Features, _ time.Duration) error {
		tries <- rt.Name
		if f == nil {
			return refusal
		}
		return nil
	})
	if len(tries) != 2 {
		t.Errorf("%d trials of two handlers", len(tries))
	}
	if err := r.userNamespaces("bad"); !errors.Is(err, refusal) {
		t.Errorf("bad: %v", err)
	}
	if err := r.userNamespaces(""); err != nil {
		t.Errorf("good: %v", err)
	}
	if r.mountOptions("bad") != nil {
		t.Error("a runtime that does not answer has mount options")
	}
	info := r.info()
	if len(info) != 2 || info[0].Name != "bad" || info[0].Error == "" || info[0].NoUserNamespaces == "" || !info[1].Default || info[1].Version == "" {
		t.Errorf("info %+v", info)
	}
}
