package stats

import "github.com/criserver/criserver/internal/cgroup"

var memoryMetrics = []cgroupMetric{
	{gauge("container_memory_usage_bytes", "Memory in use, page cache included."), nil, func(r *reading) cgroup.Optional { return valid(r.Memory.Usage) }},
	{gauge("container_memory_working_set_bytes", "Memory in use without inactive file pages."), nil, func(r *reading) cgroup.Optional { return valid(r.Memory.WorkingSet) }},
	{gauge("container_memory_rss", "Anonymous memory in bytes."), nil, func(r *reading) cgroup.Optional { return valid(r.Memory.RSS) }},
	{gauge("container_memory_cache", "Page cache in bytes."), nil, func(r *reading) cgroup.Optional { return r.detail.Memory.Cache }},
	{gauge("container_memory_total_active_file_bytes", "Recently used page cache in bytes."), nil, func(r *reading) cgroup.Optional { return r.detail.Memory.ActiveFile }},
	{gauge("container_memory_total_inactive_file_bytes", "Page cache that was not used recently, in bytes."), nil, func(r *reading) cgroup.Optional { return r.detail.Memory.InactiveFile }},
	{gauge("container_memory_active_anon_bytes", "Recently used anonymous memory in bytes."), nil, func(r *reading) cgroup.Optional { return r.detail.Memory.ActiveAnon }},
	{gauge("container_memory_inactive_anon_bytes", "Anonymous memory that was not used recently, in bytes."), nil, func(r *reading) cgroup.Optional { return r.detail.Memory.InactiveAnon }},
	{gauge("container_memory_anon_thp_bytes", "Anonymous memory in transparent huge pages in bytes."), nil, func(r *reading) cgroup.Optional { return r.detail.Memory.AnonTHP }},
	{gauge("container_memory_shmem_thp_bytes", "Shared memory in transparent huge pages in bytes."), nil, func(r *reading) cgroup.Optional { return r.detail.Memory.ShmemTHP }},
	{gauge("container_memory_file_thp_bytes", "Page cache in transparent huge pages in bytes."), nil, func(r *reading) cgroup.Optional { return r.detail.Memory.FileTHP }},
	{gauge("container_memory_mapped_file", "Mapped files in bytes."), nil, func(r *reading) cgroup.Optional { return r.detail.Memory.Mapped }},
	{gauge("container_memory_kernel_usage", "Memory of the kernel in bytes."), nil, func(r *reading) cgroup.Optional { return r.detail.Memory.Kernel }},
	{gauge("container_memory_swap", "Swap in use in bytes."), nil, func(r *reading) cgroup.Optional { return r.detail.Memory.Swap }},
	{gauge("container_memory_max_usage_bytes", "Highest use of memory so far, page cache included."), nil, func(r *reading) cgroup.Optional { return r.detail.Memory.Peak }},
	{counter("container_memory_failcnt", "Number of times the memory limit was reached."), nil, func(r *reading) cgroup.Optional { return r.detail.Memory.LimitHits }},
	pageFaults("pgfault", "hierarchy", func(m *cgroup.MemoryDetail) cgroup.Optional { return m.Faults }),
	pageFaults("pgmajfault", "hierarchy", func(m *cgroup.MemoryDetail) cgroup.Optional { return m.MajorFaults }),
	pageFaults("pgfault", "container", func(m *cgroup.MemoryDetail) cgroup.Optional { return m.OwnFaults }),
	pageFaults("pgmajfault", "container", func(m *cgroup.MemoryDetail) cgroup.Optional { return m.OwnMajorFaults }),
	{counter("container_oom_events_total", "Number of processes that the OOM killer killed."), nil, oomKills},
	{gauge("container_spec_memory_limit_bytes", "Memory limit in bytes, 0 for none."), nil, memoryLimit},
	{gauge("container_spec_memory_swap_limit_bytes", "Limit of memory and swap together in bytes, 0 for none."), nil, func(r *reading) cgroup.Optional { return r.detail.Memory.MemSwLimit }},
	{gauge("container_spec_memory_reservation_limit_bytes", "Memory that is protected from reclaim as far as possible, in bytes, 0 for none."), nil, func(r *reading) cgroup.Optional { return r.detail.Memory.Reserved }},
}

// pageFaults returns the metric of one kind of page faults. The scope has the
// values of cAdvisor: "container" is the cgroup alone, "hierarchy" includes the cgroups below.
func pageFaults(kind, scope string, read func(m *cgroup.MemoryDetail) cgroup.Optional) cgroupMetric {
	return cgroupMetric{
		counter("container_memory_failures_total", "Page faults.", "failure_type", "scope"),
		[]string{kind, scope},
		func(r *reading) cgroup.Optional { return read(&r.detail.Memory) },
	}
}

// oomKills returns the OOM kills in a container. The value is not valid for a pod:
// on cgroup v1 the pod's cgroup does not count the kills in the cgroups below it.
func oomKills(r *reading) cgroup.Optional {
	if !r.isContainer {
		return cgroup.Optional{}
	}
	return r.detail.Memory.OOMKills
}

// memoryLimit returns the memory limit. The value is not valid for a guest kernel.
func memoryLimit(r *reading) cgroup.Optional {
	return cgroup.Optional{Value: r.Memory.Limit, Valid: r.Detail != nil}
}

// Metrics of the huge pages of one size. The metrics of a pod include its containers.
var (
	hugePagesUsage = gauge("container_hugetlb_usage_bytes", "Huge pages in use or reserved, in bytes.", "pagesize")
	hugePagesPeak  = gauge("container_hugetlb_max_usage_bytes", "Highest use of huge pages so far, in bytes.", "pagesize")

	hugePagesMetrics = []metric{hugePagesUsage, hugePagesPeak}
)

// addHugePages adds the metrics of the huge pages of one size.
func (c *collector) addHugePages(h cgroup.HugePages) {
	c.addValid(hugePagesUsage, h.Usage, h.Size)
	c.addValid(hugePagesPeak, h.Peak, h.Size)
}
