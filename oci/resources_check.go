package oci

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Limits of the kernel, in its units: microseconds for the period and for the quota, which has
// 44 bits, and bytes for memory.
const (
	minShares, maxShares = 2, 1 << 18
	minPeriod, maxPeriod = 1000, 1_000_000
	minQuota, maxQuota   = 1000, 1<<44 - 1
	maxOOMScoreAdj       = 1000
)

var pageSize = regexp.MustCompile(`^[1-9][0-9]{0,9}[KMG]B$`)

// CheckResources returns an error if limits break a rule. A value of 0 or "" means "not
// specified". field is the name of the field with the limits in the request.
func (b *Builder) CheckResources(field string, r *cri.LinuxContainerResources) error {
	if r == nil {
		return nil
	}
	for _, check := range []func(string, *cri.LinuxContainerResources) error{
		checkCPU, b.checkCPUSets, b.checkMemory, b.checkHugepages, b.checkUnified,
	} {
		if err := check(field, r); err != nil {
			return err
		}
	}
	if v := r.GetOomScoreAdj(); v < -maxOOMScoreAdj || v > maxOOMScoreAdj {
		return invalid("%s.oom_score_adj %d must be from %d to %d", field, v, -maxOOMScoreAdj, maxOOMScoreAdj)
	}
	return nil
}

func checkCPU(field string, r *cri.LinuxContainerResources) error {
	if v := r.GetCpuShares(); v != 0 && (v < minShares || v > maxShares) {
		return invalid("%s.cpu_shares %d must be from %d to %d", field, v, minShares, maxShares)
	}
	if v := r.GetCpuPeriod(); v != 0 && (v < minPeriod || v > maxPeriod) {
		return invalid("%s.cpu_period %d must be from %d to %d microseconds", field, v, minPeriod, maxPeriod)
	}
	if v := r.GetCpuQuota(); v != 0 && v != -1 && (v < minQuota || v > maxQuota) {
		return invalid("%s.cpu_quota %d must be from %d to %d microseconds, or -1 for none", field, v, minQuota, maxQuota)
	}
	return nil
}

// minMemory is the smallest limit of memory, in bytes: one page. The kernel counts
// pages and rounds a smaller limit down to 0. arm64 and ppc64le can have pages of 64 KiB.
func (b *Builder) minMemory() int64 { return max(b.host.PageSize, 4096) }

func (b *Builder) checkMemory(field string, r *cri.LinuxContainerResources) error {
	limit, swap := r.GetMemoryLimitInBytes(), r.GetMemorySwapLimitInBytes()
	switch {
	case limit != 0 && limit != -1 && limit < b.minMemory():
		return invalid("%s.memory_limit_in_bytes %d must be at least %d, or -1 for none", field, limit, b.minMemory())
	case swap < -1:
		return invalid("%s.memory_swap_limit_in_bytes %d must be a number of bytes, or -1 for none", field, swap)
	case swap > 0 && limit > swap:
		return invalid("%s.memory_swap_limit_in_bytes %d is of memory and swap together: it must be at least memory_limit_in_bytes, which is %d", field, swap, limit)
	}
	return nil
}

func (b *Builder) checkCPUSets(field string, r *cri.LinuxContainerResources) error {
	for _, set := range []struct {
		name, list, what string
		online           func() string
	}{
		{"cpuset_cpus", r.GetCpusetCpus(), "online CPUs", b.host.live().OnlineCPUs},
		{"cpuset_mems", r.GetCpusetMems(), "memory nodes", b.host.live().OnlineNodes},
	} {
		if set.list == "" {
			continue
		}
		want, ok := parseCPUList(set.list)
		if !ok {
			return invalid("%s.%s %q must be a list like 0-2,7", field, set.name, set.list)
		}
		online := set.online()
		there, ok := parseCPUList(online)
		if ok && !covers(there, want) {
			return invalid("%s.%s %q must be within the host's %s, %s", field, set.name, set.list, set.what, online)
		}
	}
	return nil
}

// span is a range of numbers. It includes both ends.
type span struct{ first, last int }

// maxCPUNumber limits the numbers in a list of CPUs or memory nodes. The kernel's NR_CPUS is at
// most 8192.
const maxCPUNumber = 1 << 16

// parseCPUList parses the kernel's list format of CPUs and memory nodes.
func parseCPUList(s string) ([]span, bool) {
	var out []span
	for part := range strings.SplitSeq(s, ",") {
		from, to, ranged := strings.Cut(part, "-")
		if !ranged {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 31)
		last, err2 := strconv.ParseUint(to, 10, 31)
		if err1 != nil || err2 != nil || first > last || last >= maxCPUNumber {
			return nil, false
		}
		out = append(out, span{int(first), int(last)})
	}
	return out, true
}

// covers reports whether each span of want is in a span of there. The spans of there do not
// touch each other.
func covers(there, want []span) bool {
	return !slices.ContainsFunc(want, func(w span) bool {
		return !slices.ContainsFunc(there, func(t span) bool { return t.first <= w.first && w.last <= t.last })
	})
}

func (b *Builder) checkHugepages(field string, r *cri.LinuxContainerResources) error {
	for i, h := range r.GetHugepageLimits() {
		if !pageSize.MatchString(h.GetPageSize()) {
			return invalid("%s.hugepage_limits[%d].page_size %q must be like 2MB or 1GB", field, i, h.GetPageSize())
		}
		if len(b.host.HugePages) > 0 && !slices.Contains(b.host.HugePages, h.GetPageSize()) {
			return invalid("%s.hugepage_limits[%d].page_size %q must be one of this host's: %s", field, i, h.GetPageSize(), strings.Join(b.host.HugePages, ", "))
		}
		if h.GetLimit() > math.MaxInt64 {
			return invalid("%s.hugepage_limits[%d].limit %d must be at most %d", field, i, h.GetLimit(), int64(math.MaxInt64))
		}
		if slices.ContainsFunc(r.GetHugepageLimits()[:i], func(o *cri.HugepageLimit) bool { return o.GetPageSize() == h.GetPageSize() }) {
			return invalid("%s.hugepage_limits[%d].page_size %q is given twice", field, i, h.GetPageSize())
		}
	}
	return nil
}
