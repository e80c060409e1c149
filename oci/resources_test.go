package oci

import (
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type limits = cri.LinuxContainerResources

func hugepage(size string, limit uint64) *cri.HugepageLimit {
	return &cri.HugepageLimit{PageSize: size, Limit: limit}
}

// fakeFacts are live facts. The map unified has the rules that keys break.
type fakeFacts struct {
	cpus, nodes string
	unified     map[string]string
}

func (f fakeFacts) OnlineCPUs() string            { return f.cpus }
func (f fakeFacts) OnlineNodes() string           { return f.nodes }
func (f fakeFacts) UnifiedRule(key string) string { return f.unified[key] }

// resourceHost has CPUs 0-3 and 6, one memory node, and two sizes of hugepages.
func resourceHost() Host {
	h := testHost()
	h.HugePages = []string{"2MB", "1GB"}
	h.Live = fakeFacts{cpus: "0-3,6", nodes: "0"}
	return h
}

func TestResources(t *testing.T) {
	r := &limits{
		CpuShares: 512, CpuQuota: 20000, CpuPeriod: 100000, MemoryLimitInBytes: 1 << 26, CpusetCpus: "0-1,3", CpusetMems: "0",
		OomScoreAdj: -998, HugepageLimits: []*cri.HugepageLimit{hugepage("2MB", 1<<21)}, Unified: map[string]string{"memory.high": "1"},
	}
	in := testInput()
	in.Resources = r
	res := mustBuild(t, testHost(), in)
	l := res.Spec.Linux.Resources
	if *l.CPU.Shares != 512 || *l.CPU.Quota != 20000 || *l.CPU.Period != 100000 || l.CPU.Cpus != "0-1,3" || l.CPU.Mems != "0" {
		t.Errorf("cpu %+v", l.CPU)
	}
	if *l.Memory.Limit != 1<<26 || *l.Memory.Swap != 1<<26 {
		t.Errorf("memory %+v", l.Memory)
	}
	if len(l.HugepageLimits) != 1 || l.Unified["memory.high"] != "1" {
		t.Errorf("hugepages %v, unified %v", l.HugepageLimits, l.Unified)
	}
	// The daemon has no CAP_SYS_RESOURCE here and is at 0 itself.
	if *res.Spec.Process.OOMScoreAdj != 0 || len(res.Warnings) != 1 {
		t.Errorf("oom_score_adj %d, warnings %q", *res.Spec.Process.OOMScoreAdj, res.Warnings)
	}
}

func TestHugepagesAfterCreate(t *testing.T) {
	r := &limits{HugepageLimits: []*cri.HugepageLimit{hugepage("2MB", 1<<21)}}
	for name, tc := range map[string]struct {
		v2, hugetlb, apart bool
		want               int
	}{
		"v1":                     {false, true, false, 0},
		"v1, no controller":      {false, false, false, 0},
		"beside v1":              {false, false, true, 1},
		"unified":                {true, true, false, 1},
		"unified, no controller": {true, false, false, 0},
	} {
		h := testHost()
		h.CgroupV2, h.Hugetlb, h.HybridHugetlb = tc.v2, tc.hugetlb, tc.apart
		if got := NewBuilder(h, Defaults{}).HugepagesAfterCreate(r); len(got) != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestOOMScoreAdjIsNotInherited checks that a request without resources gets oom_score_adj 0
// instead of the value of the daemon.
func TestOOMScoreAdjIsNotInherited(t *testing.T) {
	h := testHost()
	h.OOMScoreAdj, h.Capabilities = -999, append(h.Capabilities, "CAP_SYS_RESOURCE")
	for name, r := range map[string]*limits{"no resources": nil, "empty resources": {}} {
		in := testInput()
		in.Resources = r
		res := mustBuild(t, h, in)
		if adj := res.Spec.Process.OOMScoreAdj; adj == nil || *adj != 0 {
			t.Errorf("%s: oom_score_adj %v", name, adj)
		}
	}
}

func TestResourcesOnLimitedHost(t *testing.T) {
	h := testHost()
	h.CgroupV2, h.Hugetlb, h.SwapAccounting = false, false, false
	h.Capabilities = append(h.Capabilities, "CAP_SYS_RESOURCE")
	in := testInput()
	in.Resources = &limits{
		MemoryLimitInBytes: 8192, MemorySwapLimitInBytes: 16384, OomScoreAdj: -998,
		HugepageLimits: []*cri.HugepageLimit{hugepage("2MB", 1<<21), hugepage("1GB", 0)},
	}
	res := mustBuild(t, h, in)
	l := res.Spec.Linux.Resources
	if l.HugepageLimits != nil || l.Memory.Swap != nil || len(res.Warnings) != 2 {
		t.Errorf("got %+v, warnings %q", l, res.Warnings)
	}
	if *res.Spec.Process.OOMScoreAdj != -998 {
		t.Errorf("oom_score_adj %d", *res.Spec.Process.OOMScoreAdj)
	}
	in.Resources.Unified = map[string]string{"memory.high": "1"}
	if _, err := NewBuilder(h, Defaults{}).Build(in); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "config.linux.resources.unified: this host has cgroup v1") {
		t.Errorf("unified on v1: %v", err)
	}
	h.HybridHugetlb = true
	in.Resources.Unified = nil
	if res = mustBuild(t, h, in); len(res.Warnings) != 1 || res.Spec.Linux.Resources.HugepageLimits != nil {
		t.Errorf("hugepages beside v1: %q", res.Warnings)
	}
	if got := NewBuilder(h, Defaults{}).HugepagesAfterCreate(in.Resources); !maps.Equal(got, map[string]uint64{"2MB": 1 << 21, "1GB": 0}) {
		t.Errorf("hugepages beside v1: %v", got)
	}
}

func TestSwap(t *testing.T) {
	for name, tc := range map[string]struct {
		r    *limits
		swap *int64 // nil for no swap limit
	}{
		"none asked for":     {&limits{MemoryLimitInBytes: 8192}, ptr[int64](8192)},
		"some":               {&limits{MemoryLimitInBytes: 8192, MemorySwapLimitInBytes: 10000}, ptr[int64](10000)},
		"without bound":      {&limits{MemoryLimitInBytes: 8192, MemorySwapLimitInBytes: -1}, ptr[int64](-1)},
		"no limit of memory": {&limits{MemoryLimitInBytes: -1}, ptr[int64](-1)},
		"by unified":         {&limits{MemoryLimitInBytes: 8192, Unified: map[string]string{"memory.swap.max": "1"}}, nil},
	} {
		m, warnings, err := NewBuilder(testHost(), Defaults{}).memory("F", tc.r)
		if err != nil || len(warnings) != 0 || !reflect.DeepEqual(m.Swap, tc.swap) {
			t.Errorf("%s: %+v, %q, %v", name, m, warnings, err)
		}
	}
	for _, r := range []*limits{{MemorySwapLimitInBytes: 8192}, {MemoryLimitInBytes: -1, MemorySwapLimitInBytes: 8192}} {
		if err := NewBuilder(testHost(), Defaults{}).CheckNewResources(r); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "needs memory_limit_in_bytes") {
			t.Errorf("swap without memory: %v", err)
		}
	}
}
