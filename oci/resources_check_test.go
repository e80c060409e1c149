package oci

import (
	"math"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestInvalidResources(t *testing.T) {
	tests := map[string]struct {
		r    *limits
		says string
	}{
		"shares too small":   {&limits{CpuShares: 1}, "F.cpu_shares 1 must be from 2 to 262144"},
		"shares too large":   {&limits{CpuShares: 262145}, "F.cpu_shares 262145 must be"},
		"shares negative":    {&limits{CpuShares: math.MinInt64}, "F.cpu_shares -9223372036854775808 must be"},
		"period too small":   {&limits{CpuPeriod: 999}, "F.cpu_period 999 must be from 1000 to 1000000"},
		"period too large":   {&limits{CpuPeriod: 1_000_001}, "F.cpu_period 1000001 must be"},
		"period negative":    {&limits{CpuPeriod: -1}, "F.cpu_period -1 must be"},
		"quota too small":    {&limits{CpuQuota: 999}, "F.cpu_quota 999 must be from 1000"},
		"quota too large":    {&limits{CpuQuota: 1 << 44}, "F.cpu_quota 17592186044416 must be"},
		"quota negative":     {&limits{CpuQuota: -2}, "F.cpu_quota -2 must be"},
		"memory too small":   {&limits{MemoryLimitInBytes: 4095}, "F.memory_limit_in_bytes 4095 must be at least 4096"},
		"memory negative":    {&limits{MemoryLimitInBytes: -2}, "F.memory_limit_in_bytes -2 must be"},
		"swap negative":      {&limits{MemoryLimitInBytes: 8192, MemorySwapLimitInBytes: -2}, "F.memory_swap_limit_in_bytes -2 must be"},
		"swap below memory":  {&limits{MemoryLimitInBytes: 8192, MemorySwapLimitInBytes: 8191}, "F.memory_swap_limit_in_bytes 8191 is of memory and swap together"},
		"oom_score_adj":      {&limits{OomScoreAdj: 1001}, "F.oom_score_adj 1001 must be from -1000 to 1000"},
		"oom_score_adj low":  {&limits{OomScoreAdj: -1001}, "F.oom_score_adj -1001 must be"},
		"cpuset text":        {&limits{CpusetCpus: "all"}, `F.cpuset_cpus "all" must be a list like`},
		"cpuset newline":     {&limits{CpusetCpus: "0\n1"}, "F.cpuset_cpus"},
		"cpuset comma":       {&limits{CpusetCpus: "0,"}, "F.cpuset_cpus"},
		"cpuset backwards":   {&limits{CpusetCpus: "3-1"}, "F.cpuset_cpus"},
		"cpuset signed":      {&limits{CpusetCpus: "+1"}, "F.cpuset_cpus"},
		"cpuset huge":        {&limits{CpusetCpus: "0-99999999999999999999"}, "F.cpuset_cpus"},
		"cpuset offline":     {&limits{CpusetCpus: "0-4"}, `F.cpuset_cpus "0-4" must be within the host's online CPUs, 0-3,6`},
		"cpuset gap":         {&limits{CpusetCpus: "2,5"}, "F.cpuset_cpus"},
		"mems missing":       {&limits{CpusetMems: "1"}, `F.cpuset_mems "1" must be within the host's memory nodes, 0`},
		"page size path":     {&limits{HugepageLimits: []*cri.HugepageLimit{hugepage("2MB", 1), hugepage("../x", 0)}}, "F.hugepage_limits[1].page_size \"../x\" must be like"},
		"page size missing":  {&limits{HugepageLimits: []*cri.HugepageLimit{hugepage("64KB", 0)}}, "must be one of this host's: 2MB, 1GB"},
		"page size again":    {&limits{HugepageLimits: []*cri.HugepageLimit{hugepage("2MB", 1), hugepage("2MB", 2)}}, "F.hugepage_limits[1].page_size \"2MB\" is given twice"},
		"hugepages huge":     {&limits{HugepageLimits: []*cri.HugepageLimit{hugepage("2MB", math.MaxUint64)}}, "F.hugepage_limits[0].limit"},
		"unified cgroup.":    {&limits{Unified: map[string]string{"cgroup.procs": "1"}}, `F.unified: "cgroup.procs" is not`},
		"unified path":       {&limits{Unified: map[string]string{"../memory.max": "1"}}, "F.unified"},
		"unified empty":      {&limits{Unified: map[string]string{"memory.max": ""}}, `F.unified["memory.max"] must have 1 to`},
		"unified too long":   {&limits{Unified: map[string]string{"io.max": strings.Repeat("x", 4097)}}, "F.unified"},
		"unified NUL":        {&limits{Unified: map[string]string{"io.max": "a\x00"}}, "F.unified"},
		"unified too many":   {&limits{Unified: manyUnified()}, "F.unified has 200 entries"},
		"memory, then quota": {&limits{MemoryLimitInBytes: 1 << 30, CpuQuota: 1}, "F.cpu_quota"},
	}
	b := NewBuilder(resourceHost(), Defaults{})
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if err := b.CheckResources("F", tc.r); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("check: got error %v, want %q", err, tc.says)
			}
			if _, err := b.Update(nil, tc.r); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), strings.ReplaceAll(tc.says, "F.", "linux.")) {
				t.Errorf("update: got error %v, want %q", err, tc.says)
			}
			in := testInput()
			in.Resources = tc.r
			if _, err := b.Build(in); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), strings.ReplaceAll(tc.says, "F.", "config.linux.resources.")) {
				t.Errorf("create: got error %v, want %q", err, tc.says)
			}
		})
	}
}

// TestSmallestMemoryLimit checks hosts with pages of 4 and 64 KiB. The kernel rounds a limit
// below one page to 0.
func TestSmallestMemoryLimit(t *testing.T) {
	for page, tests := range map[int64]map[int64]bool{
		0:        {4095: false, 4096: true},
		4 << 10:  {4095: false, 4096: true, 0: true, -1: true},
		64 << 10: {4096: false, 65535: false, 65536: true, 0: true, -1: true},
	} {
		host := resourceHost()
		host.PageSize = page
		b := NewBuilder(host, Defaults{})
		for limit, ok := range tests {
			err := b.CheckResources("F", &limits{MemoryLimitInBytes: limit})
			if ok != (err == nil) || err != nil && !errdefs.IsInvalidArgument(err) {
				t.Errorf("limit %d with pages of %d bytes: got error %v, want valid: %t", limit, page, err, ok)
			}
		}
	}
}

func manyUnified() map[string]string {
	m := make(map[string]string)
	for i := range 200 {
		m["io.x"+strings.Repeat("y", i)] = "1"
	}
	return m
}

func TestValidResources(t *testing.T) {
	b := NewBuilder(resourceHost(), Defaults{})
	for _, r := range []*limits{
		nil,
		{},
		{CpuShares: 2, CpuPeriod: 1000, CpuQuota: -1, MemoryLimitInBytes: -1, MemorySwapLimitInBytes: -1, OomScoreAdj: -1000},
		{CpuShares: 262144, CpuPeriod: 1_000_000, CpuQuota: 1<<44 - 1, MemoryLimitInBytes: math.MaxInt64, OomScoreAdj: 1000},
		{MemoryLimitInBytes: 8192, MemorySwapLimitInBytes: 8192, CpusetCpus: "6,0-1,3", CpusetMems: "0"},
		{Unified: map[string]string{"memory.oom.group": "1", "io.max": "8:0 rbps=1"}, HugepageLimits: []*cri.HugepageLimit{hugepage("2MB", 0), hugepage("1GB", 1<<30)}},
	} {
		if err := b.CheckResources("F", r); err != nil {
			t.Errorf("check of %v: got error %v, want none", r, err)
		}
	}
	// Without facts about the host, the check leaves CPUs and memory nodes to the kernel.
	h := testHost()
	if err := NewBuilder(h, Defaults{}).CheckResources("F", &limits{CpusetCpus: "40", CpusetMems: "7"}); err != nil {
		t.Error(err)
	}
}

func FuzzParseCPUList(f *testing.F) {
	for _, s := range []string{"0", "0-3,6", "", ",", "-", "1-", "9-8", "0x1", "65535", "65536"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		spans, ok := parseCPUList(s)
		for _, p := range spans {
			if ok && (p.first < 0 || p.last < p.first || p.last >= maxCPUNumber) {
				t.Errorf("parse %q: got invalid spans %v", s, spans)
			}
		}
		if ok && strings.Trim(s, "0123456789,-") != "" {
			t.Errorf("parse %q succeeded, want an error", s)
		}
		if ok && !covers([]span{{0, maxCPUNumber}}, spans) {
			t.Errorf("spans of %q: got %v, want them within 0 to %d", s, spans, maxCPUNumber)
		}
	})
}
