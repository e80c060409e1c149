package cgroup

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func valid(v uint64) Optional { return Optional{v, true} }

func TestDetail(t *testing.T) {
	dir, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	hierarchies := make(map[string]string)
	for _, controller := range []string{"cpu", "cpuacct", "memory", "blkio", "pids", "freezer", "hugetlb"} {
		hierarchies[controller] = dir + "/v1/" + controller
	}
	v2 := Detail{
		CPU: CPUDetail{
			User: valid(1_904_311_000), System: valid(827_144_000), Periods: valid(120), Throttled: valid(7), ThrottledTime: valid(91_234_000),
			Period: valid(80000), Quota: valid(40000), Shares: valid(1024),
		},
		Memory: MemoryDetail{
			Cache: valid(9 << 20), Mapped: valid(4325376), Kernel: valid(1396736), Swap: valid(1 << 20), Peak: valid(64 << 20),
			ActiveFile: valid(3 << 20), InactiveFile: valid(6 << 20), Faults: valid(48211), MajorFaults: valid(37), LimitHits: valid(5), OOMKills: valid(3),
			MemSwLimit: valid(128 << 20), Reserved: valid(16 << 20),
			ActiveAnon: valid(8192), InactiveAnon: valid(20774912), AnonTHP: valid(4 << 20),
		},
		// The kernel of the v2 files counts reservations of 2 MB pages only.
		HugePages: []HugePages{{Size: "1GB", Usage: valid(1 << 30)}, {Size: "2MB", Usage: valid(4 << 20)}},
		Devices:   []DeviceIO{{"4095:7", valid(8192), valid(4096), valid(512), valid(2), valid(1)}},
		// pids.max contains "max".
		MaxTasks: valid(0), Processes: valid(3), PIDs: []int{101, 102, 103},
	}
	v1 := v2
	v1.CPU.User, v1.CPU.System, v1.CPU.Quota = valid(1_900_000_000), valid(820_000_000), Optional{}
	v1.Memory.OwnFaults, v1.Memory.MemSwLimit, v1.Memory.Reserved = valid(3), valid(256<<20), valid(0)
	v1.MaxTasks = valid(32)
	v1.Memory.ActiveAnon, v1.Memory.InactiveAnon = Optional{}, Optional{}
	v1.HugePages = []HugePages{{Size: "2MB", Usage: valid(6 << 20), Peak: valid(8 << 20)}}
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

// TestDetailWithMissingFiles checks that values of files that the kernel does not have are not
// valid, rather than 0.
func TestDetailWithMissingFiles(t *testing.T) {
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
		"v2": {newTree(true, map[string]string{"": v2}), Detail{CPU: CPUDetail{Period: valid(100000)}, Processes: valid(0)}},
		"v1": {newTree(false, map[string]string{"cpuacct": v1 + "/cpuacct", "memory": v1 + "/memory"}), Detail{Processes: valid(0)}},
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

// TestDetailIsReadOnce checks that the additional files are read once, when Detail is first called.
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
		if got := s.Detail().Memory.Peak; got != valid(2) {
			t.Errorf("peak is %v with %s in the file, want 2", got, now)
		}
	}
}

// TestSharesOfWeight checks the shares of weights that OCI runtimes write.
func TestSharesOfWeight(t *testing.T) {
	for weight, want := range map[uint64]uint64{1: 2, 100: 1024, 10000: 262144} {
		if got := sharesOfWeight(valid(weight)); got != valid(want) {
			t.Errorf("weight %d: %v", weight, got)
		}
	}
	for _, w := range []Optional{{}, valid(0)} {
		if got := sharesOfWeight(w); got != (Optional{}) {
			t.Errorf("%v: %v", w, got)
		}
	}
}

func TestMemSwLimit(t *testing.T) {
	for _, tc := range []struct {
		memory uint64
		swap   string
		want   Optional
	}{
		{100, "50", valid(150)}, {100, "0", valid(100)}, {100, "max", valid(0)}, {0, "50", valid(0)}, {100, "", Optional{}},
	} {
		if got := memSwLimitV2(tc.memory, tc.swap); got != tc.want {
			t.Errorf("memory %d, swap %q: %v", tc.memory, tc.swap, got)
		}
	}
}

func TestDeviceNames(t *testing.T) {
	if got := DeviceName("4095:7"); got != "4095:7" {
		t.Errorf("name of a missing device is %s", got)
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
		t.Errorf("name of %s is %s, which is not in %s", links[0], name, uevent)
	}
}
