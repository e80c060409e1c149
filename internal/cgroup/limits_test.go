package cgroup

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func asMap(limits []Limit) map[string]string {
	out := make(map[string]string)
	for _, l := range limits {
		out[l.File] = l.Value
	}
	return out
}

func TestLimitsV2(t *testing.T) {
	dir := t.TempDir()
	tree := newTree(true, map[string]string{"": dir})
	before := map[string]string{
		"cpu.max": "max 100000", "cpuset.cpus": "", "memory.max": "8192", "hugetlb.2MB.max": "4096", "memory.oom.group": "0",
	}
	for name, v := range before {
		writeFiles(t, dir, map[string]string{"c/" + name: v + "\n"})
	}
	writeFiles(t, dir, map[string]string{"c/cpu.stat": "usage_usec 1\n"})
	limits, err := tree.Limits("/c", "memory.oom.group", "io.cost.none")
	if err != nil || !maps.Equal(asMap(limits), before) {
		t.Fatalf("got %v, %v", limits, err)
	}
	writeFiles(t, dir, map[string]string{"c/cpu.max": "5000 10000\n", "c/cpuset.cpus": "1\n", "c/memory.max": "max\n", "c/memory.oom.group": "1\n"})
	if err := tree.SetLimits("/c", limits); err != nil {
		t.Fatal(err)
	}
	again, err := tree.Limits("/c", "memory.oom.group")
	if err != nil || !slices.Equal(again, limits) {
		t.Errorf("got %v, want %v, %v", again, limits, err)
	}
	// A cgroup that was removed meanwhile has no limits to restore.
	if err := os.RemoveAll(filepath.Join(dir, "c")); err != nil {
		t.Fatal(err)
	}
	if err := tree.SetLimits("/c", limits); err != nil {
		t.Error(err)
	}
	if none, err := tree.Limits("/c"); err != nil || len(none) != 0 {
		t.Errorf("limits of a missing cgroup: %v, %v", none, err)
	}
}

func TestLimitLines(t *testing.T) {
	const max = " rbps=max wbps=max riops=max wiops=max"
	for name, tc := range map[string]struct {
		file, now, value string
		want             []string
	}{
		"device removed": {"io.max", "8:0 rbps=1 wbps=max riops=max wiops=max\n8:16 rbps=2 wbps=max riops=max wiops=max", "8:0 rbps=7 wbps=max riops=max wiops=max", []string{"8:16" + max, "8:0 rbps=7 wbps=max riops=max wiops=max"}},
		"no device left": {"io.max", "8:0 rbps=1 wbps=max riops=max wiops=max", "", []string{"8:0" + max}},
		"weights":        {"io.weight", "default 50\n8:0 70", "default 100", []string{"8:0 default", "default 100"}},
		"rates on v1":    {"blkio.throttle.read_bps_device", "8:0 100\n8:16 200", "8:16 300\n8:32 400", []string{"8:0 0", "8:16 300", "8:32 400"}},
		"no devices":     {"cpu.max", "1000 2000", "max 100000", []string{"max 100000"}},
		"empty list":     {"cpuset.cpus", "1", "", []string{""}},
	} {
		if got := limitLines(tc.file, tc.now, tc.value); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestRestoreBlockIORates(t *testing.T) {
	tree, p := realCgroup(t)
	file, line := tree.Dir("blkio", p)+"/blkio.throttle.read_bps_device", " 1048576"
	if tree.V2() {
		file, line = tree.Dir("", p)+"/io.max", " rbps=1048576 wbps=max riops=max wiops=max"
	}
	var st unix.Stat_t
	disks, err := filepath.Glob("/dev/[vs]da")
	if err != nil || len(disks) == 0 || unix.Stat(disks[0], &st) != nil {
		t.Skip("this host has no disk with a usual name")
	}
	if _, err := os.Stat(file); err != nil {
		t.Skip("this kernel has no block I/O rates")
	}
	line = strconv.Itoa(int(unix.Major(st.Rdev))) + ":" + strconv.Itoa(int(unix.Minor(st.Rdev))) + line
	free, err := tree.Limits(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := write(file, line); err != nil {
		t.Fatal(err)
	}
	bound, err := tree.Limits(p)
	if err != nil || asMap(bound)[filepath.Base(file)] != line {
		t.Fatalf("got %v, %v", bound, err)
	}
	for _, want := range [][]Limit{free, bound, free} {
		if err := tree.SetLimits(p, want); err != nil {
			t.Fatal(err)
		}
		if got, err := tree.Limits(p); err != nil || !slices.Equal(got, want) {
			t.Errorf("got %v, want %v, %v", got, want, err)
		}
	}
}

func TestReclaim(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"c/memory.current": "9000\n", "c/memory.reclaim": ""})
	tree := newTree(true, map[string]string{"": dir})
	requested := func() string {
		b, err := os.ReadFile(filepath.Join(dir, "c/memory.reclaim"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if used := tree.Reclaim("/c", 10000); used != 9000 || requested() != "" {
		t.Errorf("usage below the limit: %d in use, requested %q", used, requested())
	}
	if used := tree.Reclaim("/c", 8000); used != 9000 || requested() != "1000" {
		t.Errorf("usage above the limit: %d in use, requested %q", used, requested())
	}
}

// realCgroup makes a cgroup on the host.
func realCgroup(t *testing.T) (*Tree, string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("cgroups need root")
	}
	tree, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	p := "/criserver-test-limits-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano()%1e6, 10) + "/pod/c"
	if err := tree.Make(p); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Release(p) })
	return tree, p
}

func TestRestoreDependentLimits(t *testing.T) {
	tree, p := realCgroup(t)
	change := map[string]string{"cpu.max": "30000 50000", "memory.max": "8388608"}
	controller := map[string]string{"cpu.max": "", "memory.max": ""}
	if !tree.V2() {
		change = map[string]string{
			"cpu.cfs_quota_us": "30000", "cpu.cfs_period_us": "50000", "cpu.shares": "77",
			"memory.limit_in_bytes": "8388608", "memory.memsw.limit_in_bytes": "8388608", "pids.max": "5",
		}
		controller = map[string]string{
			"cpu.cfs_quota_us": "cpu", "cpu.cfs_period_us": "cpu", "cpu.shares": "cpu",
			"memory.limit_in_bytes": "memory", "memory.memsw.limit_in_bytes": "memory", "pids.max": "pids",
		}
	}
	free, err := tree.Limits(p)
	if err != nil {
		t.Fatal(err)
	}
	var tight []Limit
	for file, v := range change {
		tight = append(tight, Limit{controller[file], file, v})
	}
	for range 2 {
		// Lower and raise the limits: for memory and swap, each direction needs another order.
		for _, want := range [][]Limit{tight, free} {
			if err := tree.SetLimits(p, want); err != nil {
				t.Fatal(err)
			}
			got, err := tree.Limits(p)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range want {
				if !slices.Contains(got, l) {
					t.Errorf("%s is %q, want %q", l.File, asMap(got)[l.File], l.Value)
				}
			}
		}
	}
	bad := []Limit{{controller["memory.max"], "cpu.shares", "1"}, {"memory", "memory.limit_in_bytes", "malformed"}}
	if err := tree.SetLimits(p, bad); !tree.V2() && (err == nil || !strings.Contains(err.Error(), "memory.limit_in_bytes")) {
		t.Errorf("malformed value: %v", err)
	}
}

func TestHugetlb(t *testing.T) {
	tree, p := realCgroup(t)
	if controller, _ := tree.hugetlb(); controller == nil {
		t.Skip("this kernel has no hugetlb controller")
	}
	const size = "2MB"
	if _, err := os.Stat("/sys/kernel/mm/hugepages/hugepages-2048kB"); err != nil {
		t.Skip("this host has no huge pages of 2 MB")
	}
	if err := tree.SetHugetlb(p, map[string]uint64{size: 6 << 20}); err != nil {
		t.Fatal(err)
	}
	limits, err := tree.Limits(p)
	if err != nil {
		t.Fatal(err)
	}
	_, suffix := tree.hugetlb()
	for _, file := range []string{"hugetlb.2MB." + suffix, "hugetlb.2MB.rsvd." + suffix} {
		if got := asMap(limits)[file]; got != "6291456" {
			t.Errorf("%s is %q in %v", file, got, limits)
		}
	}
	if err := tree.SetHugetlb(p, map[string]uint64{size: 0}); err != nil {
		t.Fatal(err)
	}
	if err := tree.SetLimits(p, limits); err != nil {
		t.Fatal(err)
	}
	if again, err := tree.Limits(p); err != nil || !slices.Equal(again, limits) {
		t.Errorf("restored limits: %v, %v", again, err)
	}
	if err := tree.SetHugetlb(p, map[string]uint64{"3MB": 1}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing page size: %v", err)
	}
	none := newTree(false, map[string]string{"memory": "/m"})
	if err := none.SetHugetlb(p, map[string]uint64{size: 0}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing controller: %v", err)
	}
	if err := none.SetHugetlb(p, nil); err != nil {
		t.Error(err)
	}
}
