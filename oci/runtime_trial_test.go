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
	// One run and one delete: the result of the first trial was stored.
	if b, err := os.ReadFile(count); err != nil || len(b) != 4 {
		t.Errorf("the runtime that does not work was called %d times, %v", len(b)/2, err)
	}
	if _, err := c.Choose(t.Context(), bad); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "not on this machine") {
		t.Errorf("no working runtime: %v", err)
	}
	bundles, _ := filepath.Glob(filepath.Join(dir, "prove-*"))
	if len(bundles) > 0 {
		t.Errorf("bundles still exist: %v", bundles)
	}
	if _, err := good.Features(t.Context()); err != nil {
		t.Error(err)
	}
	if v, err := good.Version(t.Context()); err != nil || !strings.HasPrefix(v, "runc version") {
		t.Errorf("%q, %v", v, err)
	}
}

// A trial that times out has no stored result.
func TestChooserStoresNoTimeout(t *testing.T) {
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
		t.Fatalf("trial of a slow runtime: %v", err)
	}
	if err := os.Remove(slow); err != nil {
		t.Fatal(err)
	}
	c.TrialTimeout = time.Minute
	if _, err := c.Choose(t.Context(), r); err != nil {
		t.Errorf("second trial: %v", err)
	}
}

// The deadline of the trial kills a runtime that has made a cgroup but not written its state.
func TestChooserRemovesCgroupOfKilledRuntime(t *testing.T) {
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
		found, err := filepath.Glob(where + "/criserver-*")
		if err != nil || len(found) > 0 {
			t.Errorf("cgroups still exist: %v, %v", found, err)
		}
		if found, err := filepath.Glob(filepath.Join(dir, trialPrefix+"*")); err != nil || len(found) > 0 {
			t.Errorf("bundles still exist: %v, %v", found, err)
		}
	}
	if _, err := c.Choose(t.Context(), r); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("trial of a hanging runtime: %v", err)
	}
	if _, err := os.Stat(made); err != nil {
		t.Fatalf("the runtime has made no cgroup: %v", err)
	}
	check()

	// The next daemon removes what a killed daemon has left behind.
	id := ids.New()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, trialPrefix+id), 0o700), os.Mkdir(where+"/criserver-"+id, 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Choose(t.Context(), r); err == nil {
		t.Error("a hanging runtime was chosen")
	}
	check()
}
