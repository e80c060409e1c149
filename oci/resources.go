package oci

import (
	"fmt"
	"maps"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// createField is the field with the limits in a CreateContainerRequest.
const createField = "config.linux.resources"

func (c *specBuilder) resources() error {
	if err := c.CheckNewResources(c.in.Resources); err != nil {
		return err
	}
	res, warnings, err := c.translate(createField, c.in.Resources)
	if err != nil {
		return err
	}
	c.warnings = append(c.warnings, warnings...)
	res.Devices = c.spec.Linux.Resources.Devices
	if c.defaults.PidsLimit > 0 {
		res.Pids = &specs.LinuxPids{Limit: &c.defaults.PidsLimit}
	}
	c.baseResources(res)
	res.BlockIO, c.spec.Linux.IntelRdt = c.in.BlockIO, c.in.RDT
	c.spec.Linux.Resources = res
	return nil
}

// CheckNewResources returns an error if the limits of a new container are not valid. Unlike the
// limits of an update, they must be complete.
func (b *Builder) CheckNewResources(r *cri.LinuxContainerResources) error {
	if err := b.CheckResources(createField, r); err != nil {
		return err
	}
	_, _, err := b.memory(createField, r)
	return err
}

// translate converts valid limits to OCI limits, for creation and update.
func (b *Builder) translate(field string, r *cri.LinuxContainerResources) (*specs.LinuxResources, []string, error) {
	out := &specs.LinuxResources{CPU: cpu(r), Unified: maps.Clone(r.GetUnified())}
	var warnings []string
	var err error
	if out.Memory, warnings, err = b.memory(field, r); err != nil {
		return nil, nil, err
	}
	for _, h := range r.GetHugepageLimits() {
		switch {
		case b.host.Hugetlb:
			out.HugepageLimits = append(out.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: h.GetPageSize(), Limit: h.GetLimit()})
		case !b.host.HybridHugetlb && h.GetLimit() > 0:
			// The kubelet sends a limit of 0 for each page size on every node.
			warnings = append(warnings, "hugepage_limits of "+h.GetPageSize()+" are not enforced: the hugetlb controller is missing")
		}
	}
	return out, warnings, nil
}

// HugepagesAfterCreate returns the limits of hugepages, in bytes by page size,
// that the OCI runtime's create leaves unset. On the unified hierarchy crun does
// not limit the reservations of hugepages. On the unified hierarchy beside v1 no
// runtime limits anything.
func (b *Builder) HugepagesAfterCreate(r *cri.LinuxContainerResources) map[string]uint64 {
	if !b.host.HybridHugetlb && (!b.host.CgroupV2 || !b.host.Hugetlb) {
		return nil
	}
	return hugepages(r)
}

func hugepages(r *cri.LinuxContainerResources) map[string]uint64 {
	var out map[string]uint64
	for _, h := range r.GetHugepageLimits() {
		if out == nil {
			out = make(map[string]uint64)
		}
		out[h.GetPageSize()] = h.GetLimit()
	}
	return out
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

// swapMax is the file of v2 with the limit of swap alone.
const swapMax = "memory.swap.max"

// memory converts the limits of memory and swap. Without a swap limit, a container with a
// memory limit gets no swap, if the kernel accounts for swap; otherwise the container could
// swap without limit. The OCI swap limit is the sum of memory and swap, as on v1; on v2, the
// runtime subtracts the memory limit.
func (b *Builder) memory(field string, r *cri.LinuxContainerResources) (*specs.LinuxMemory, []string, error) {
	limit, swap := r.GetMemoryLimitInBytes(), r.GetMemorySwapLimitInBytes()
	switch {
	case limit == 0 && swap > 0, limit == -1 && swap > 0:
		return nil, nil, invalid("%s.memory_swap_limit_in_bytes %d is of memory and swap together: it needs memory_limit_in_bytes", field, swap)
	case limit == 0:
		return nil, nil, nil
	}
	m := &specs.LinuxMemory{Limit: ptr(limit)}
	switch {
	case !b.host.SwapAccounting && swap != 0 && swap != limit:
		return m, []string{fmt.Sprintf("memory_swap_limit_in_bytes %d is not enforced: this kernel does not account for swap", swap)}, nil
	case !b.host.SwapAccounting, swap == 0 && r.GetUnified()[swapMax] != "":
		return m, nil, nil
	case swap == 0:
		swap = limit
	}
	m.Swap = ptr(swap)
	return m, nil, nil
}

// OOMScoreAdj returns the oom_score_adj that a process of a container gets. Without
// CAP_SYS_RESOURCE, which nested runtimes do not have, the value cannot be lower than the
// daemon's. A pod must not fail because of that.
func (b *Builder) OOMScoreAdj(want int64) (adj int, warning string) {
	adj = int(want)
	if adj < b.host.OOMScoreAdj && !slices.Contains(b.host.Capabilities, "CAP_SYS_RESOURCE") {
		return b.host.OOMScoreAdj, fmt.Sprintf("oom_score_adj %d is not allowed without CAP_SYS_RESOURCE: %d is used", adj, b.host.OOMScoreAdj)
	}
	return adj, ""
}

func ptr[T any](v T) *T { return &v }
