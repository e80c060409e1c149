package admin

import (
	"fmt"
	"iter"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cgroup"
)

// requestedLimit is the content of a control file that a request demands.
type requestedLimit struct {
	field string // the field of the request with its value
	// expected is the content that the file should have, or "" if OCI runtimes convert the
	// value in different ways.
	expected string
	// implied is true if the value follows from another field. The kernel may then lack the
	// file.
	implied bool
	unified bool // an entry of the field unified
}

// limitRequests contains the requested limits by the name of the control file.
type limitRequests map[string]requestedLimit

// defaultPeriod is the CPU period of the kernel in microseconds.
const defaultPeriod = 100_000

// requestedLimits returns the control files that the resources of a container set.
func requestedLimits(r *cri.LinuxContainerResources, v2 bool) limitRequests {
	l := make(limitRequests)
	if v2 {
		l.addV2(r)
	} else {
		l.addV1(r)
	}
	l.add("cpuset.cpus", "cpuset_cpus", r.GetCpusetCpus(), r.GetCpusetCpus())
	l.add("cpuset.mems", "cpuset_mems", r.GetCpusetMems(), r.GetCpusetMems())
	for _, h := range r.GetHugepageLimits() {
		file := "hugetlb." + h.GetPageSize() + ".limit_in_bytes"
		if v2 {
			file = "hugetlb." + h.GetPageSize() + ".max"
		}
		l.add(file, "hugepage_limits["+h.GetPageSize()+"]", strconv.FormatUint(h.GetLimit(), 10), strconv.FormatUint(h.GetLimit(), 10))
	}
	for file, value := range r.GetUnified() {
		l[file] = requestedLimit{field: fmt.Sprintf("unified[%s]=%s", file, value), expected: value, unified: true}
	}
	return l
}

// add adds a file, unless the field is not set. Numeric fields are not set if they are 0.
func (l limitRequests) add(file, field, value, expected string) {
	if value != "" && value != "0" {
		l[file] = requestedLimit{field: field + "=" + value, expected: expected}
	}
}

func (l limitRequests) addV1(r *cri.LinuxContainerResources) {
	number := func(file, field string, n int64) {
		l.add(file, field, strconv.FormatInt(n, 10), strconv.FormatInt(n, 10))
	}
	number("cpu.shares", "cpu_shares", r.GetCpuShares())
	number("cpu.cfs_quota_us", "cpu_quota", r.GetCpuQuota())
	number("cpu.cfs_period_us", "cpu_period", r.GetCpuPeriod())
	memory, swap := r.GetMemoryLimitInBytes(), r.GetMemorySwapLimitInBytes()
	number("memory.limit_in_bytes", "memory_limit_in_bytes", memory)
	number("memory.memsw.limit_in_bytes", "memory_swap_limit_in_bytes", swap)
	if memory > 0 && swap == 0 {
		l["memory.memsw.limit_in_bytes"] = impliedLimit(memory, strconv.FormatInt(memory, 10))
	}
}

// impliedLimit is a limit of swap that follows from a limit of memory: without a swap limit, a
// container with a memory limit cannot swap.
func impliedLimit(memory int64, expected string) requestedLimit {
	return requestedLimit{field: fmt.Sprintf("memory_limit_in_bytes=%d", memory), expected: expected, implied: true}
}

func (l limitRequests) addV2(r *cri.LinuxContainerResources) {
	// OCI runtimes convert shares to a weight with different formulas.
	l.add("cpu.weight", "cpu_shares", strconv.FormatInt(r.GetCpuShares(), 10), "")
	quota, period := r.GetCpuQuota(), r.GetCpuPeriod()
	if quota != 0 || period != 0 {
		value, expected := fmt.Sprintf("cpu_quota=%d cpu_period=%d", quota, period), "max"
		if quota > 0 {
			expected = strconv.FormatInt(quota, 10)
		}
		if period == 0 {
			period = defaultPeriod
		}
		l["cpu.max"] = requestedLimit{field: value, expected: fmt.Sprintf("%s %d", expected, period)}
	}
	memory, swap := r.GetMemoryLimitInBytes(), r.GetMemorySwapLimitInBytes()
	l.add("memory.max", "memory_limit_in_bytes", strconv.FormatInt(memory, 10), bytesOrMax(memory))
	// The request limits memory and swap together; the file limits swap alone.
	expected := "max"
	if swap > 0 {
		expected = strconv.FormatInt(swap-memory, 10)
	}
	l.add("memory.swap.max", "memory_swap_limit_in_bytes", strconv.FormatInt(swap, 10), expected)
	if memory > 0 && swap == 0 {
		l["memory.swap.max"] = impliedLimit(memory, "0")
	}
}

func bytesOrMax(n int64) string {
	if n < 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

// unifiedFiles returns the files of the field unified.
func (l limitRequests) unifiedFiles() iter.Seq[string] {
	return func(yield func(string) bool) {
		for file, r := range l {
			if r.unified && !yield(file) {
				return
			}
		}
	}
}

// compare returns the limits that the kernel has, with what the request says of them. A
// requested file that the kernel does not have differs, unless the request does not name it.
func (l limitRequests) compare(limits []cgroup.Limit) []*adminv1.CgroupLimit {
	var list []*adminv1.CgroupLimit
	found := make(map[string]bool, len(limits))
	for _, limit := range limits {
		found[limit.File] = true
		out := &adminv1.CgroupLimit{File: limit.File, Value: strings.Join(strings.Split(limit.Value, "\n"), "; ")}
		if r, ok := l[limit.File]; ok {
			out.Requested, out.Expected = r.field, r.expected
			out.Differs = r.expected != "" && !sameLimit(limit.File, limit.Value, r.expected)
		}
		list = append(list, out)
	}
	for _, file := range slices.Sorted(maps.Keys(l)) {
		if r := l[file]; !found[file] && !r.implied {
			list = append(list, &adminv1.CgroupLimit{File: file, Requested: r.field, Expected: r.expected, Differs: true})
		}
	}
	slices.SortStableFunc(list, func(a, b *adminv1.CgroupLimit) int { return strings.Compare(a.File, b.File) })
	return list
}

// unlimitedV1 is more memory than any machine has. The memory controller of v1 shows the
// absence of a limit as a number that depends on the page size.
const unlimitedV1 = 1 << 62

// sameLimit reports whether the content of a control file is what was asked for. The kernel
// rounds sizes to pages and rewrites lists of CPUs.
func sameLimit(file, got, want string) bool {
	got, want = strings.TrimSpace(got), strings.TrimSpace(want)
	if got == want {
		return true
	}
	if strings.HasPrefix(file, "cpuset.") {
		a, errA := parseList(got)
		b, errB := parseList(want)
		return errA == nil && errB == nil && slices.Equal(a, b)
	}
	g, errG := strconv.ParseInt(got, 10, 64)
	w, errW := strconv.ParseInt(want, 10, 64)
	if errG != nil || errW != nil {
		return false
	}
	if w == -1 {
		return g >= unlimitedV1
	}
	page := int64(os.Getpagesize())
	return (strings.HasPrefix(file, "memory.") || strings.HasPrefix(file, "hugetlb.")) && g == w/page*page
}

// maxListed limits the numbers in a list of CPUs or memory nodes.
const maxListed = 1 << 16

// parseList returns the numbers of a list such as "0-3,7", sorted and without duplicates.
func parseList(text string) ([]int, error) {
	var numbers []int
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(part), "-")
		a, err := strconv.Atoi(first)
		if err != nil {
			return nil, err
		}
		b := a
		if isRange {
			if b, err = strconv.Atoi(last); err != nil {
				return nil, err
			}
		}
		if a < 0 || b < a || b >= maxListed {
			return nil, fmt.Errorf("%q is not a range", part)
		}
		for n := a; n <= b; n++ {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return slices.Compact(numbers), nil
}
