package oci

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func (c *build) resources() error {
	res, warnings, err := c.Resources(c.in.Resources)
	if err != nil {
		return err
	}
	c.warnings = append(c.warnings, warnings...)
	res.Devices = c.spec.Linux.Resources.Devices
	if c.defaults.PidsLimit > 0 {
		res.Pids = &specs.LinuxPids{Limit: &c.defaults.PidsLimit}
	}
	c.spec.Linux.Resources = res
	return nil
}

// Resources translates limits; of each field 0 or "" means "not specified". It
// serves creation and update alike.
func (b *Builder) Resources(r *cri.LinuxContainerResources) (*specs.LinuxResources, []string, error) {
	out := &specs.LinuxResources{}
	if r == nil {
		return out, nil, nil
	}
	if err := checkResources(r); err != nil {
		return nil, nil, err
	}
	out.CPU = cpu(r)
	out.Memory = b.memory(r)
	var warnings []string
	for _, h := range r.GetHugepageLimits() {
		if !b.host.Hugetlb {
			// The kubelet sends a limit of 0 for each page size on every node.
			if h.GetLimit() > 0 {
				warnings = append(warnings, "hugepage_limits are not enforced: the hugetlb controller is missing")
			}
			continue
		}
		out.HugepageLimits = append(out.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: h.GetPageSize(), Limit: h.GetLimit()})
	}
	if len(r.GetUnified()) > 0 {
		if b.host.CgroupV2 {
			out.Unified = maps.Clone(r.GetUnified())
		} else {
			warnings = append(warnings, "unified resources are not enforced: this machine has cgroup v1")
		}
	}
	return out, warnings, nil
}

func cpu(r *cri.LinuxContainerResources) *specs.LinuxCPU {
	c := &specs.LinuxCPU{Cpus: r.GetCpusetCpus(), Mems: r.GetCpusetMems()}
	if v := r.GetCpuShares(); v > 0 {
		c.Shares = ptr(uint64(v))
	}
	if v := r.GetCpuQuota(); v != 0 {
		c.Quota = ptr(v)
	}
	if v := r.GetCpuPeriod(); v > 0 {
		c.Period = ptr(uint64(v))
	}
	if *c == (specs.LinuxCPU{}) {
		return nil
	}
	return c
}

// memory: a limit without one for swap means no swap at all, where the kernel
// accounts for it; else the container could swap without bound.
func (b *Builder) memory(r *cri.LinuxContainerResources) *specs.LinuxMemory {
	limit, swap := r.GetMemoryLimitInBytes(), r.GetMemorySwapLimitInBytes()
	if limit == 0 {
		return nil
	}
	m := &specs.LinuxMemory{Limit: ptr(limit)}
	if b.host.SwapAccounting {
		if swap == 0 {
			swap = limit
		}
		m.Swap = ptr(swap)
	}
	return m
}

var (
	cpuList  = regexp.MustCompile(`^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$`)
	pageSize = regexp.MustCompile(`^[1-9][0-9]{0,9}[KMG]B$`)
	unified  = regexp.MustCompile(`^[a-z][a-z0-9_]*(\.[A-Za-z0-9_]+)+$`)
)

func checkResources(r *cri.LinuxContainerResources) error {
	for name, v := range map[string]int64{
		"cpu_shares": r.GetCpuShares(), "cpu_period": r.GetCpuPeriod(),
		"memory_limit_in_bytes": max(r.GetMemoryLimitInBytes(), -1) + 1, // -1 is "unlimited" to runtimes
	} {
		if v < 0 {
			return invalid("resources.%s %d must not be negative", name, v)
		}
	}
	for name, v := range map[string]string{"cpuset_cpus": r.GetCpusetCpus(), "cpuset_mems": r.GetCpusetMems()} {
		if v != "" && !cpuList.MatchString(v) {
			return invalid("resources.%s %q must be a list like 0-2,7", name, v)
		}
	}
	for _, h := range r.GetHugepageLimits() {
		if !pageSize.MatchString(h.GetPageSize()) {
			return invalid("resources.hugepage_limits: page_size %q must be like 2MB or 1GB", h.GetPageSize())
		}
	}
	for _, k := range slices.Sorted(maps.Keys(r.GetUnified())) {
		// The key is a file name in the container's cgroup; cgroup.* would move
		// processes or change the tree (CVE-2023-6476 and its kin).
		if !unified.MatchString(k) || strings.HasPrefix(k, "cgroup.") {
			return invalid("resources.unified: %q is not a key of a resource controller", k)
		}
	}
	return nil
}

func ptr[T any](v T) *T { return &v }
