package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/patience"
)

func TestChooser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("running a container needs root")
	}
	runc, err := filepath.Abs("../bin/runc")
	if err == nil {
		_, err = os.Stat(runc)
	}
	if err != nil {
		t.Fatal("no bin/runc: run `make tools`")
	}
	tree, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}
	parent := fmt.Sprintf("/criserver-test-oci-%d", os.Getpid())
	if err := tree.Make(parent); err != nil {
		t.Fatal(err)
	}
	defer tree.Release(parent)
	host, err := DetectHost(tree)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := &Chooser{RunDir: dir, Prober: "/bin/busybox", ProberArgs: []string{"true"}, CgroupParent: parent, Cgroups: tree, Builder: NewBuilder(host, Defaults{})}
	count := filepath.Join(t.TempDir(), "count")
	bad := fakeRuntime(t, "echo x >> "+count+"; echo '{\"level\":\"error\",\"msg\":\"not on this machine\"}' >&3; exit 1")
	good := &Runtime{Name: "good", Path: runc, Root: filepath.Join(dir, "runc")}
	for range 2 {
		got, err := c.Choose(t.Context(), bad, good)
		if err != nil || got != good {
			t.Fatalf("got %v, %v", got, err)
		}
	}
	// One run and one delete: the verdict of the first time was kept.
	if b, err := os.ReadFile(count); err != nil || len(b) != 4 {
		t.Errorf("the bad one was called %d times, %v", len(b)/2, err)
	}
	if _, err := c.Choose(t.Context(), bad); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "not on this machine") {
		t.Errorf("none: %v", err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "prove-*"))
	if len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := good.Features(t.Context()); err != nil {
		t.Error(err)
	}
	if v, err := good.Version(t.Context()); err != nil || !strings.HasPrefix(v, "runc version") {
		t.Errorf("%q, %v", v, err)
	}
}

// TestChooserKeepsNoVerdictOfALateTrial has a runtime that is slow at first.
func TestChooserKeepsNoVerdictOfALateTrial(t *testing.T) {
	tree, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}
	host, err := DetectHost(tree)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	slow := filepath.Join(dir, "slow")
	if err := os.WriteFile(slow, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r := fakeRuntime(t, "[ ! -e "+slow+" ] || { case \"$*\" in *delete*) ;; *) exec sleep 600;; esac; }")
	c := &Chooser{RunDir: dir, Prober: "/bin/true", CgroupParent: "/test", Cgroups: tree, Builder: NewBuilder(host, Defaults{}), TrialTimeout: 200 * time.Millisecond}
	if _, err := c.Choose(t.Context(), r); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a late trial: %v", err)
	}
	if err := os.Remove(slow); err != nil {
		t.Fatal(err)
	}
	c.TrialTimeout = time.Minute
	if _, err := c.Choose(t.Context(), r); err != nil {
		t.Errorf("the runtime is fast now: %v", err)
	}
}

// TestChooserRemovesTheCgroupOfAKilledRuntime kills a runtime, by the deadline of
// the trial, that has made a cgroup and not written its state.
func TestChooserRemovesTheCgroupOfAKilledRuntime(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making a cgroup needs root")
	}
	tree, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}
	parent := fmt.Sprintf("/criserver-test-oci-killed-%d", os.Getpid())
	if err := tree.Make(parent); err != nil {
		t.Fatal(err)
	}
	defer tree.Release(parent)
	host, err := DetectHost(tree)
	if err != nil {
		t.Fatal(err)
	}
	dir, where := t.TempDir(), tree.Dir("memory", parent)
	made := filepath.Join(dir, "made")
	r := fakeRuntime(t, "case \"$*\" in *delete*) exit 1;; esac; for id; do :; done; mkdir "+where+"/criserver-$id && touch "+made+"; exec sleep 600")
	c := &Chooser{
		RunDir: dir, Prober: "/bin/true", CgroupParent: parent, Cgroups: tree, Builder: NewBuilder(host, Defaults{}),
		TrialTimeout: patience.For(2 * time.Second),
	}
	check := func() {
		t.Helper()
		left, err := filepath.Glob(where + "/criserver-*")
		if err != nil || len(left) > 0 {
			t.Errorf("cgroups are left: %v, %v", left, err)
		}
		if left, err := filepath.Glob(filepath.Join(dir, trialPrefix+"*")); err != nil || len(left) > 0 {
			t.Errorf("bundles are left: %v, %v", left, err)
		}
	}
	if _, err := c.Choose(t.Context(), r); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a trial whose runtime hangs: %v", err)
	}
	if _, err := os.Stat(made); err != nil {
		t.Fatalf("the runtime has made no cgroup: %v", err)
	}
	check()

	// The next daemon removes what a killed one left.
	id := ids.New()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, trialPrefix+id), 0o700), os.Mkdir(where+"/criserver-"+id, 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Choose(t.Context(), r); err == nil {
		t.Error("a runtime that hangs was chosen")
	}
	check()
}
