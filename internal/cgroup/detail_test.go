package cgroup

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func known(v uint64) Figure { return Figure{v, true} }

func TestDetailOfFiles(t *testing.T) {
	dir, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	hierarchies := make(map[string]string)
	for _, controller := range []string{"cpu", "cpuacct", "memory", "blkio", "pids", "freezer"} {
		hierarchies[controller] = dir + "/v1/" + controller
	}
	v2 := Detail{
		CPU: CPUDetail{
			User: known(1_904_311_000), System: known(827_144_000), Periods: known(120), Throttled: known(7), ThrottledTime: known(91_234_000),
			Period: known(80000), Quota: known(40000), Shares: known(1024),
		},
		Memory: MemoryDetail{
			Cache: known(9 << 20), Mapped: known(4325376), Kernel: known(1396736), Swap: known(1 << 20), Peak: known(64 << 20),
			ActiveFile: known(3 << 20), InactiveFile: known(6 << 20), Faults: known(48211), MajorFaults: known(37), LimitHits: known(5), OOMKills: known(3),
			MemSwLimit: known(128 << 20), Reserved: known(16 << 20),
		},
		Devices: []DeviceIO{{"4095:7", known(8192), known(4096), known(512), known(2), known(1)}},
		// The pod's file says "max".
		MaxTasks: known(0), Processes: known(3), PIDs: []int{101, 102, 103},
	}
	v1 := v2
	v1.CPU.User, v1.CPU.System, v1.CPU.Quota = known(1_900_000_000), known(820_000_000), Figure{}
	v1.Memory.OwnFaults, v1.Memory.MemSwLimit, v1.Memory.Reserved = known(3), known(256<<20), known(0)
	v1.MaxTasks = known(32)
	for name, tc := range map[string]struct {
		tree *Tree
		want Detail
	}{
		"v2": {newTree(true, map[string]string{"": dir + "/v2"}), v2},
		"v1": {newTree(false, hierarchies), v1},
	} {
		s, err := tc.tree.Stats("/pod")
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Detail(); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, tc.want)
		}
	}
}

// Files that a kernel lacks make figures unknown, not 0.
func TestDetailOfALittleHost(t *testing.T) {
	write := func(dir string, files map[string]string) string {
		for name, text := range files {
			file := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	v2 := write(t.TempDir(), map[string]string{"pod/cpu.stat": "usage_usec 5\n", "pod/memory.stat": "anon 1\n", "pod/cpu.max": "max 100000\n", "pod/cpu.weight": "0\n", "pod/cgroup.procs": ""})
	v1 := write(t.TempDir(), map[string]string{"cpuacct/pod/cpuacct.usage": "5\n", "memory/pod/memory.stat": "rss 1\n", "memory/pod/cgroup.procs": ""})
	for name, tc := range map[string]struct {
		tree *Tree
		want Detail
	}{
		"v2": {newTree(true, map[string]string{"": v2}), Detail{CPU: CPUDetail{Period: known(100000)}, Processes: known(0)}},
		"v1": {newTree(false, map[string]string{"cpuacct": v1 + "/cpuacct", "memory": v1 + "/memory"}), Detail{Processes: known(0)}},
	} {
		s, err := tc.tree.Stats("/pod")
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Detail(); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, tc.want)
		}
	}
}

// For one reading the further files are read once, and not before they are asked for.
func TestDetailIsReadOnce(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/v2")); err != nil {
		t.Fatal(err)
	}
	peak := func(v string) {
		if err := os.WriteFile(filepath.Join(dir, "pod", "memory.peak"), []byte(v), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	peak("1")
	s, err := newTree(true, map[string]string{"": dir}).Stats("/pod")
	if err != nil {
		t.Fatal(err)
	}
	for _, now := range []string{"2", "3"} {
		peak(now)
		if got := s.Detail().Memory.Peak; got != known(2) {
			t.Errorf("with %s in the file: %v", now, got)
		}
	}
}

// The pairs are those that OCI runtimes make of shares.
func TestSharesOfWeights(t *testing.T) {
	for weight, want := range map[uint64]uint64{1: 2, 100: 1024, 10000: 262144} {
		if got := sharesOf(known(weight)); got != known(want) {
			t.Errorf("weight %d: %v", weight, got)
		}
	}
	for _, w := range []Figure{{}, known(0)} {
		if got := sharesOf(w); got != (Figure{}) {
			t.Errorf("%v: %v", w, got)
		}
	}
}

func TestBothLimits(t *testing.T) {
	for _, tc := range []struct {
		memory uint64
		swap   string
		want   Figure
	}{
		{100, "50", known(150)}, {100, "0", known(100)}, {100, "max", known(0)}, {0, "50", known(0)}, {100, "", Figure{}},
	} {
		if got := bothLimitsV2(tc.memory, tc.swap); got != tc.want {
			t.Errorf("memory %d, swap %q: %v", tc.memory, tc.swap, got)
		}
	}
}

func TestDeviceNames(t *testing.T) {
	if got := DeviceName("4095:7"); got != "4095:7" {
		t.Errorf("an unknown device: %s", got)
	}
	links, err := filepath.Glob("/sys/dev/block/*")
	if err != nil || len(links) == 0 {
		t.Skipf("this host has no block devices: %v", err)
	}
	uevent, err := os.ReadFile(filepath.Join(links[0], "uevent"))
	if err != nil {
		t.Fatal(err)
	}
	name := DeviceName(filepath.Base(links[0]))
	if !strings.Contains(string(uevent), "DEVNAME="+strings.TrimPrefix(name, "/dev/")+"\n") {
		t.Errorf("%s is called %s, not as in %s", links[0], name, uevent)
	}
}
