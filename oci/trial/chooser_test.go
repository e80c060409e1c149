package trial

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
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/host"
	"github.com/criserver/criserver/oci/runtime"
)

// newChooser returns a Chooser with an empty directory for results. Its cgroups are below a cgroup that
// exists during the test, if the user is root.
func newChooser(t *testing.T, prober string, args ...string) *Chooser {
	t.Helper()
	tree, err := cgroup.Open()
	if err != nil {
		t.Fatalf("open the cgroup tree: %v", err)
	}
	facts, err := host.Detect(tree)
	if err != nil {
		t.Fatalf("detect the features of the host: %v", err)
	}
	c := &Chooser{
		RunDir: t.TempDir(), Prober: prober, ProberArgs: args, Cgroups: tree, Builder: oci.NewBuilder(facts, oci.Defaults{}),
		CgroupParent: fmt.Sprintf("/criserver-%s-%d", strings.ToLower(t.Name()), os.Getpid()),
	}
	if os.Geteuid() != 0 {
		return c
	}
	if err := tree.Make(c.CgroupParent); err != nil {
		t.Fatalf("make the cgroup %s: %v", c.CgroupParent, err)
	}
	t.Cleanup(func() { tree.Release(c.CgroupParent) })
	return c
}

// checkClean fails the test if containers of trials have left cgroups or bundles behind.
func checkClean(t *testing.T, c *Chooser) {
	t.Helper()
	cgroups := c.Cgroups.(*cgroup.Tree).Dir("memory", c.CgroupParent)
	for _, pattern := range []string{cgroups + "/criserver-*", filepath.Join(c.RunDir, bundlePrefix+"*")} {
		if found, err := filepath.Glob(pattern); err != nil || len(found) > 0 {
			t.Errorf("remains of trials: got %v, error %v, want none", found, err)
		}
	}
}

// fakeRuntime returns an OCI runtime that is a shell script.
func fakeRuntime(t *testing.T, script string) *runtime.Runtime {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fake")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatalf("write the fake runtime: %v", err)
	}
	return &runtime.Runtime{Name: "fake", Path: path, Root: filepath.Join(t.TempDir(), "root")}
}

func TestChooser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("running a container needs root")
	}
	runc, err := filepath.Abs("../../bin/runc")
	if err == nil {
		_, err = os.Stat(runc)
	}
	if err != nil {
		t.Fatal("no bin/runc: run `make tools`")
	}
	c := newChooser(t, "/bin/busybox", "true")
	count := filepath.Join(t.TempDir(), "count")
	bad := fakeRuntime(t, "echo x >> "+count+"; echo '{\"level\":\"error\",\"msg\":\"not on this machine\"}' >&3; exit 1")
	good := &runtime.Runtime{Name: "good", Path: runc, Root: filepath.Join(c.RunDir, "runc")}
	for range 2 {
		got, err := c.Choose(t.Context(), bad, good)
		if err != nil || got != good {
			t.Fatalf("choose between a broken runtime and runc: got %v, error %v, want runc", got, err)
		}
	}
	// One run and one delete: the result of the first trial was stored.
	if b, err := os.ReadFile(count); err != nil || len(b) != 4 {
		t.Errorf("the runtime that does not work was called %d times, want 2 (error %v)", len(b)/2, err)
	}
	if _, err := c.Choose(t.Context(), bad); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "not on this machine") {
		t.Errorf("choose without a working runtime: got error %v, want ErrUnavailable with the message of the runtime", err)
	}
	checkClean(t, c)
	if _, err := good.Features(t.Context()); err != nil {
		t.Errorf("features of runc: %v", err)
	}
	if v, err := good.Version(t.Context()); err != nil || !strings.HasPrefix(v, "runc version") {
		t.Errorf("version of runc: got %q, error %v", v, err)
	}
}

// TestChooserStoresNoTimeout checks that a trial that times out has no stored result.
func TestChooserStoresNoTimeout(t *testing.T) {
	c := newChooser(t, "/bin/true")
	c.Timeout = 200 * time.Millisecond
	slow := filepath.Join(c.RunDir, "slow")
	if err := os.WriteFile(slow, nil, 0o644); err != nil {
		t.Fatalf("write %s: %v", slow, err)
	}
	r := fakeRuntime(t, "[ ! -e "+slow+" ] || { case \"$*\" in *delete*) ;; *) exec sleep 600;; esac; }")
	if _, err := c.Choose(t.Context(), r); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("trial of a slow runtime: got error %v, want DeadlineExceeded", err)
	}
	if err := os.Remove(slow); err != nil {
		t.Fatalf("remove %s: %v", slow, err)
	}
	c.Timeout = time.Minute
	if _, err := c.Choose(t.Context(), r); err != nil {
		t.Errorf("second trial: %v", err)
	}
}

// TestChooserRemovesCgroupOfKilledRuntime checks that the deadline of the trial kills a runtime
// that has made a cgroup but not written its state.
func TestChooserRemovesCgroupOfKilledRuntime(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making a cgroup needs root")
	}
	c := newChooser(t, "/bin/true")
	c.Timeout = patience.For(2 * time.Second)
	cgroups := c.Cgroups.(*cgroup.Tree).Dir("memory", c.CgroupParent)
	made := filepath.Join(c.RunDir, "made")
	r := fakeRuntime(t, "case \"$*\" in *delete*) exit 1;; esac; for id; do :; done; mkdir "+cgroups+"/criserver-$id && touch "+made+"; exec sleep 600")
	if _, err := c.Choose(t.Context(), r); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("trial of a hanging runtime: got error %v, want DeadlineExceeded", err)
	}
	if _, err := os.Stat(made); err != nil {
		t.Fatalf("the runtime has made no cgroup: %v", err)
	}
	checkClean(t, c)

	// The next daemon removes the leftovers of a killed daemon.
	id := ids.New()
	if err := errors.Join(os.Mkdir(filepath.Join(c.RunDir, bundlePrefix+id), 0o700), os.Mkdir(cgroups+"/criserver-"+id, 0o755)); err != nil {
		t.Fatalf("make the remains of a killed daemon: %v", err)
	}
	if _, err := c.Choose(t.Context(), r); err == nil {
		t.Error("a hanging runtime was chosen")
	}
	checkClean(t, c)
}
