package oci

import (
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestUpdate(t *testing.T) {
	shares, quota, period := ptr[uint64](300), ptr[int64](50000), ptr[uint64](100000)
	mem := func(limit, swap int64) *specs.LinuxMemory {
		return &specs.LinuxMemory{Limit: &limit, Swap: &swap, CheckBeforeUpdate: ptr(true)}
	}
	for name, tc := range map[string]struct {
		has, r, now *limits
		want        *specs.LinuxResources
	}{
		"nothing":      {&limits{CpuShares: 7}, &limits{}, &limits{CpuShares: 7}, nil},
		"had none":     {nil, &limits{CpuShares: 300}, &limits{CpuShares: 300}, &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: shares}}},
		"keeps others": {&limits{MemoryLimitInBytes: 8192, CpuShares: 9}, &limits{CpuShares: 300}, &limits{MemoryLimitInBytes: 8192, CpuShares: 300}, &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: shares}}},
		"quota brings the period": {
			&limits{CpuPeriod: 100000, CpuQuota: 10000}, &limits{CpuQuota: 50000}, &limits{CpuPeriod: 100000, CpuQuota: 50000},
			&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: quota, Period: period}},
		},
		"memory without swap": {&limits{MemoryLimitInBytes: 8192}, &limits{MemoryLimitInBytes: 16384}, &limits{MemoryLimitInBytes: 16384}, &specs.LinuxResources{Memory: mem(16384, 16384)}},
		"no swap stays none": {
			&limits{MemoryLimitInBytes: 8192, MemorySwapLimitInBytes: 8192}, &limits{MemoryLimitInBytes: 16384},
			&limits{MemoryLimitInBytes: 16384, MemorySwapLimitInBytes: 16384}, &specs.LinuxResources{Memory: mem(16384, 16384)},
		},
		"swap stays": {
			&limits{MemoryLimitInBytes: 8192, MemorySwapLimitInBytes: 32768}, &limits{MemoryLimitInBytes: 16384},
			&limits{MemoryLimitInBytes: 16384, MemorySwapLimitInBytes: 32768}, &specs.LinuxResources{Memory: mem(16384, 32768)},
		},
		"swap brings memory": {
			&limits{MemoryLimitInBytes: 8192}, &limits{MemorySwapLimitInBytes: 32768},
			&limits{MemoryLimitInBytes: 8192, MemorySwapLimitInBytes: 32768}, &specs.LinuxResources{Memory: mem(8192, 32768)},
		},
		"unified swap is said again": {
			&limits{MemoryLimitInBytes: 8192, Unified: map[string]string{swapMax: "5", "io.max": "8:0 rbps=1"}}, &limits{MemoryLimitInBytes: 16384},
			&limits{MemoryLimitInBytes: 16384, Unified: map[string]string{swapMax: "5", "io.max": "8:0 rbps=1"}},
			&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr[int64](16384), CheckBeforeUpdate: ptr(true)}, Unified: map[string]string{swapMax: "5"}},
		},
		"hugepages one by one": {
			&limits{HugepageLimits: []*cri.HugepageLimit{hugepage("2MB", 1), hugepage("1GB", 2)}}, &limits{HugepageLimits: []*cri.HugepageLimit{hugepage("1GB", 3)}},
			&limits{HugepageLimits: []*cri.HugepageLimit{hugepage("2MB", 1), hugepage("1GB", 3)}}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := proto.Clone(tc.has)
			u, err := NewBuilder(testHost(), Defaults{}).Update(tc.has, tc.r)
			if err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(u.Now, tc.now) {
				t.Errorf("limits after the update %v, want %v", u.Now, tc.now)
			}
			if !reflect.DeepEqual(u.Resources, tc.want) {
				t.Errorf("limits for the runtime %+v, want %+v", u.Resources, tc.want)
			}
			if !proto.Equal(before, tc.has) {
				t.Errorf("Update changed its argument to %v", tc.has)
			}
			if !maps.Equal(u.Hugepages, hugepages(tc.now)) {
				t.Errorf("hugepages %v", u.Hugepages)
			}
		})
	}
}

func TestUpdateChecksUnchangedLimits(t *testing.T) {
	b := NewBuilder(testHost(), Defaults{})
	for name, tc := range map[string]struct {
		has, r *limits
		says   string
	}{
		"memory above swap":   {&limits{MemoryLimitInBytes: 8192, MemorySwapLimitInBytes: 16384}, &limits{MemoryLimitInBytes: 32768}, "linux.memory_swap_limit_in_bytes 16384"},
		"swap below memory":   {&limits{MemoryLimitInBytes: 32768}, &limits{MemorySwapLimitInBytes: 16384}, "linux.memory_swap_limit_in_bytes 16384"},
		"swap without memory": {&limits{CpuShares: 2}, &limits{MemorySwapLimitInBytes: 16384}, "needs memory_limit_in_bytes"},
	} {
		if _, err := b.Update(tc.has, tc.r); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUpdateOOMScoreAdj(t *testing.T) {
	b := NewBuilder(testHost(), Defaults{})
	for want, got := range map[int64]int{500: 500, -500: 0} {
		u, err := b.Update(nil, &limits{OomScoreAdj: want})
		if err != nil || u.OOMScoreAdj == nil || *u.OOMScoreAdj != got || (want < 0) != (len(u.Warnings) == 1) || u.Resources != nil {
			t.Errorf("%d: %+v, %v", want, u, err)
		}
	}
	if u, err := b.Update(&limits{OomScoreAdj: 7}, &limits{CpuShares: 2}); err != nil || u.OOMScoreAdj != nil || u.Now.GetOomScoreAdj() != 7 {
		t.Errorf("without a value: %+v, %v", u, err)
	}
}

// TestFullResources checks that after a failed update, the runtime gets a value for every limit.
func TestFullResources(t *testing.T) {
	res, err := NewBuilder(testHost(), Defaults{}).FullResources(&limits{CpuQuota: 20000, CpuPeriod: 50000})
	if err != nil || *res.CPU.Shares != 1024 || *res.CPU.Quota != 20000 || *res.CPU.Period != 50000 || *res.Memory.Limit != -1 || *res.Memory.Swap != -1 {
		t.Errorf("%+v %+v %v", res.CPU, res.Memory, err)
	}
}
