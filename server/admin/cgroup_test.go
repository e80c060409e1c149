package admin

import (
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/internal/cgroup"
)

func TestRequestedLimits(t *testing.T) {
	full := &cri.LinuxContainerResources{
		CpuShares: 512, CpuQuota: 50000, CpuPeriod: 100000, MemoryLimitInBytes: 10 << 20, CpusetCpus: "0,1",
		HugepageLimits: []*cri.HugepageLimit{{PageSize: "2MB", Limit: 4 << 20}},
	}
	for _, tc := range []struct {
		name      string
		resources *cri.LinuxContainerResources
		v2        bool
		limits    []cgroup.Limit
		differs   map[string]bool // by file with a request
	}{
		{
			name: "v2 as requested", resources: full, v2: true,
			limits: []cgroup.Limit{
				{File: "cpu.max", Value: "50000 100000"},
				{File: "cpu.weight", Value: "20"},
				{File: "memory.max", Value: "10485760"},
				{File: "memory.swap.max", Value: "0"},
				{File: "cpuset.cpus", Value: "0-1"},
				{File: "hugetlb.2MB.max", Value: "4194304"},
				{File: "pids.max", Value: "max"},
			},
			differs: map[string]bool{
				"cpu.max": false, "cpu.weight": false, "memory.max": false, "memory.swap.max": false, "cpuset.cpus": false, "hugetlb.2MB.max": false,
			},
		},
		{
			name: "v1 as requested", resources: full,
			limits: []cgroup.Limit{
				{File: "cpu.cfs_quota_us", Value: "50000"},
				{File: "cpu.cfs_period_us", Value: "100000"},
				{File: "cpu.shares", Value: "512"},
				{File: "memory.limit_in_bytes", Value: "10485760"},
				{File: "memory.memsw.limit_in_bytes", Value: "10485760"},
				{File: "cpuset.cpus", Value: "0-1"},
				{File: "hugetlb.2MB.limit_in_bytes", Value: "4194304"},
			},
			differs: map[string]bool{
				"cpu.cfs_quota_us": false, "cpu.cfs_period_us": false, "cpu.shares": false, "memory.limit_in_bytes": false,
				"memory.memsw.limit_in_bytes": false, "cpuset.cpus": false, "hugetlb.2MB.limit_in_bytes": false,
			},
		},
		{
			name: "changed by somebody else", resources: full, v2: true,
			limits: []cgroup.Limit{
				{File: "cpu.max", Value: "max 100000"},
				{File: "memory.max", Value: "max"},
				{File: "memory.swap.max", Value: "max"},
				{File: "cpuset.cpus", Value: "0"},
				{File: "hugetlb.2MB.max", Value: "max"},
			},
			// The file cpu.weight is missing.
			differs: map[string]bool{
				"cpu.max": true, "cpu.weight": true, "memory.max": true, "memory.swap.max": true, "cpuset.cpus": true, "hugetlb.2MB.max": true,
			},
		},
		{
			name: "sizes between pages, and swap", v2: true,
			resources: &cri.LinuxContainerResources{MemoryLimitInBytes: 1<<20 + 1, MemorySwapLimitInBytes: 3<<20 + 1, Unified: map[string]string{"memory.high": "1000000"}},
			limits: []cgroup.Limit{
				{File: "memory.max", Value: "1048576"}, {File: "memory.swap.max", Value: "2097152"}, {File: "memory.high", Value: "999424"},
			},
			differs: map[string]bool{"memory.max": false, "memory.swap.max": false, "memory.high": false},
		},
		{
			name:      "a kernel that does not account for swap",
			resources: &cri.LinuxContainerResources{MemoryLimitInBytes: 1 << 20}, v2: true,
			limits:  []cgroup.Limit{{File: "memory.max", Value: "1048576"}},
			differs: map[string]bool{"memory.max": false},
		},
		{
			name: "no limits on v1", resources: &cri.LinuxContainerResources{CpuQuota: -1, MemoryLimitInBytes: -1},
			limits:  []cgroup.Limit{{File: "cpu.cfs_quota_us", Value: "-1"}, {File: "memory.limit_in_bytes", Value: "9223372036854771712"}},
			differs: map[string]bool{"cpu.cfs_quota_us": false, "memory.limit_in_bytes": false},
		},
	} {
		got := make(map[string]bool)
		for _, l := range requestedLimits(tc.resources, tc.v2).compare(tc.limits) {
			if l.Requested != "" {
				got[l.File] = l.Differs
			}
		}
		for file, want := range tc.differs {
			if differs, ok := got[file]; !ok || differs != want {
				t.Errorf("%s: %s: got differs %v (listed: %v), want %v", tc.name, file, differs, ok, want)
			}
		}
		if len(got) != len(tc.differs) {
			t.Errorf("%s: got %v, want the files of %v", tc.name, got, tc.differs)
		}
	}
}
