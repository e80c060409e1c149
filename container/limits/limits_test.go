package limits

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"reflect"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/oomscore"
	"github.com/criserver/criserver/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
)

// fakeCgroups are cgroups whose limits are in memory.
type fakeCgroups struct {
	v2       bool
	used     uint64 // memory use that the kernel cannot reclaim, in bytes
	limits   map[string][]cgroup.Limit
	pids     []int
	hugetlb  error
	hugepage map[string]uint64
}

func (f *fakeCgroups) V2() bool                      { return f.v2 }
func (f *fakeCgroups) Pids(string) ([]int, error)    { return f.pids, nil }
func (f *fakeCgroups) EnableHugetlb(string) error    { return nil }
func (f *fakeCgroups) Reclaim(string, uint64) uint64 { return f.used }

func (f *fakeCgroups) Limits(path string, _ ...string) ([]cgroup.Limit, error) {
	return f.limits[path], nil
}

func (f *fakeCgroups) SetLimits(path string, limits []cgroup.Limit) error {
	f.limits[path] = limits
	return nil
}

func (f *fakeCgroups) SetHugetlb(_ string, limits map[string]uint64) error {
	f.hugepage = limits
	return f.hugetlb
}

func target(c Cgroups) *Target {
	return &Target{ID: "c", PID: os.Getpid(), Cgroup: "/scope", ProcessCgroup: "/scope/container", Cgroups: c, Log: logrus.NewEntry(logrus.StandardLogger())}
}

// TestCheck checks which memory limits are refused.
func TestCheck(t *testing.T) {
	memory := func(limit int64) *oci.Update {
		return &oci.Update{Resources: &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}}
	}
	for name, tc := range map[string]struct {
		v2      bool
		update  *oci.Update
		refused bool
	}{
		"enough":             {true, memory(100), false},
		"too low":            {true, memory(99), true},
		"too low, cgroup v1": {false, memory(99), false},
		"no limit":           {true, memory(-1), false},
		"no change":          {true, &oci.Update{}, false},
	} {
		err := target(&fakeCgroups{v2: tc.v2, used: 100}).Check(tc.update)
		if errdefs.IsFailedPrecondition(err) != tc.refused || (err != nil) != tc.refused {
			t.Errorf("%s: got %v, want a refusal: %t", name, err, tc.refused)
		}
	}
}

// TestReset changes the limits of both cgroups and the oom_score_adj, and checks that Reset sets the saved values.
func TestReset(t *testing.T) {
	process := exec.Command("sleep", "1000")
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = process.Process.Kill(), process.Wait() }()
	pid := process.Process.Pid
	if err := oomscore.Set(pid, 500); err != nil {
		t.Fatal(err)
	}
	before := map[string][]cgroup.Limit{
		"/scope":           {{File: "cpu.weight", Value: "100"}},
		"/scope/container": {{File: "cpu.weight", Value: "50"}},
	}
	c := &fakeCgroups{limits: map[string][]cgroup.Limit{"/scope": before["/scope"], "/scope/container": before["/scope/container"]}, pids: []int{pid}}
	tg := target(c)
	tg.PID = pid
	adj := 700
	update := &oci.Update{OOMScoreAdj: &adj, Hugepages: map[string]uint64{"2MB": 1}}
	saved, err := tg.Save(update)
	if err != nil {
		t.Fatal(err)
	}
	if err := tg.Apply(t.Context(), update); err != nil {
		t.Fatal(err)
	}
	if got, err := oomscore.Get(pid); err != nil || got != adj || c.hugepage["2MB"] != 1 {
		t.Errorf("after the update: got oom_score_adj %d, %v and hugepages %v", got, err, c.hugepage)
	}
	c.limits = map[string][]cgroup.Limit{}
	if err := tg.Reset(context.Background(), saved, nil); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c.limits, before) {
		t.Errorf("limits: got %v, want %v", c.limits, before)
	}
	if got, err := oomscore.Get(pid); err != nil || got != 500 {
		t.Errorf("oom_score_adj: got %d, %v, want 500", got, err)
	}
}

// TestMissingHugetlbCgroup checks that limits of hugepages that no cgroup can enforce are no error.
func TestMissingHugetlbCgroup(t *testing.T) {
	for _, tc := range []struct{ fails, want error }{{nil, nil}, {fs.ErrNotExist, nil}, {fs.ErrPermission, fs.ErrPermission}} {
		if err := target(&fakeCgroups{hugetlb: tc.fails}).SetHugepages(map[string]uint64{"2MB": 1}); !errors.Is(err, tc.want) {
			t.Errorf("error %v of the cgroup: got %v, want %v", tc.fails, err, tc.want)
		}
	}
}
