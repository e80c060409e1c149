package server

import (
	"slices"
	"time"

	"github.com/criserver/criserver/internal/cgroup"
)

// reading is what the metrics of a cgroup are taken from, of a container or of a
// pod.
type reading struct {
	*cgroup.Usage
	// more is empty for a guest, which tells no more than the first few figures.
	more cgroup.Detail
	// container is false for a pod.
	container bool
	// shares are those of the CPU that the container was given, 0 for unknown.
	shares uint64
}

// usageMetric is a metric of a cgroup; values are those of its own labels.
type usageMetric struct {
	metric
	values []string
	read   func(r *reading) cgroup.Figure
}

var usageMetrics = slices.Concat(cpuMetrics, memoryMetrics, taskMetrics, specMetrics, pressureMetrics)

var cpuMetrics = []usageMetric{
	{counter("container_cpu_usage_seconds_total", "CPU time consumed in seconds.", "cpu"), []string{"total"}, func(r *reading) cgroup.Figure { return inSeconds(sure(r.CPUUsage)) }},
	{counter("container_cpu_user_seconds_total", "CPU time consumed in user mode in seconds."), nil, func(r *reading) cgroup.Figure { return inSeconds(r.more.CPU.User) }},
	{counter("container_cpu_system_seconds_total", "CPU time consumed in the kernel in seconds."), nil, func(r *reading) cgroup.Figure { return inSeconds(r.more.CPU.System) }},
	{counter("container_cpu_cfs_periods_total", "Periods of the CPU quota that have passed."), nil, func(r *reading) cgroup.Figure { return r.more.CPU.Periods }},
	{counter("container_cpu_cfs_throttled_periods_total", "Periods in which the CPU quota was used up."), nil, func(r *reading) cgroup.Figure { return r.more.CPU.Throttled }},
	{counter("container_cpu_cfs_throttled_seconds_total", "Time spent waiting for CPU quota in seconds."), nil, func(r *reading) cgroup.Figure { return inSeconds(r.more.CPU.ThrottledTime) }},
}

const (
	failures     = "container_memory_failures_total"
	failuresHelp = "Page faults."
)

func faults(kind, scope string, read func(m *cgroup.MemoryDetail) cgroup.Figure) usageMetric {
	return usageMetric{
		counter(failures, failuresHelp, "failure_type", "scope"),
		[]string{kind, scope},
		func(r *reading) cgroup.Figure { return read(&r.more.Memory) },
	}
}

var memoryMetrics = []usageMetric{
	{gauge("container_memory_usage_bytes", "Memory in use, page cache included."), nil, func(r *reading) cgroup.Figure { return sure(r.Memory.Usage) }},
	{gauge("container_memory_working_set_bytes", "Memory in use, less inactive file pages."), nil, func(r *reading) cgroup.Figure { return sure(r.Memory.WorkingSet) }},
	{gauge("container_memory_rss", "Anonymous memory in bytes."), nil, func(r *reading) cgroup.Figure { return sure(r.Memory.RSS) }},
	{gauge("container_memory_cache", "Page cache in bytes."), nil, func(r *reading) cgroup.Figure { return r.more.Memory.Cache }},
	{gauge("container_memory_total_active_file_bytes", "Page cache used of late, in bytes."), nil, func(r *reading) cgroup.Figure { return r.more.Memory.ActiveFile }},
	{gauge("container_memory_total_inactive_file_bytes", "Page cache not used of late, in bytes."), nil, func(r *reading) cgroup.Figure { return r.more.Memory.InactiveFile }},
	{gauge("container_memory_mapped_file", "Mapped files in bytes."), nil, func(r *reading) cgroup.Figure { return r.more.Memory.Mapped }},
	{gauge("container_memory_kernel_usage", "Memory of the kernel in bytes."), nil, func(r *reading) cgroup.Figure { return r.more.Memory.Kernel }},
	{gauge("container_memory_swap", "Swap in use in bytes."), nil, func(r *reading) cgroup.Figure { return r.more.Memory.Swap }},
	{gauge("container_memory_max_usage_bytes", "The most memory ever in use, page cache included."), nil, func(r *reading) cgroup.Figure { return r.more.Memory.Peak }},
	{counter("container_memory_failcnt", "How often the limit of memory was reached."), nil, func(r *reading) cgroup.Figure { return r.more.Memory.LimitHits }},
	faults("pgfault", "hierarchy", func(m *cgroup.MemoryDetail) cgroup.Figure { return m.Faults }),
	faults("pgmajfault", "hierarchy", func(m *cgroup.MemoryDetail) cgroup.Figure { return m.MajorFaults }),
	faults("pgfault", "container", func(m *cgroup.MemoryDetail) cgroup.Figure { return m.OwnFaults }),
	faults("pgmajfault", "container", func(m *cgroup.MemoryDetail) cgroup.Figure { return m.OwnMajorFaults }),
	{counter("container_oom_events_total", "Processes killed for want of memory."), nil, oomKills},
}

// oomKills are those of containers: on v1 a pod's cgroup counts none of theirs.
func oomKills(r *reading) cgroup.Figure {
	if !r.container {
		return cgroup.Figure{}
	}
	return r.more.Memory.OOMKills
}

var taskMetrics = []usageMetric{
	{gauge("container_processes", "Number of processes."), nil, func(r *reading) cgroup.Figure { return r.more.Processes }},
	{gauge("container_threads", "Number of tasks."), nil, func(r *reading) cgroup.Figure {
		// Where there is a limit there is a count. A guest has no limit, but tasks.
		return cgroup.Figure{Value: r.Pids, Known: r.Pids > 0 || r.more.MaxTasks.Known}
	}},
	{gauge("container_threads_max", "Limit of tasks, 0 for none."), nil, func(r *reading) cgroup.Figure { return r.more.MaxTasks }},
}

var specMetrics = []usageMetric{
	{gauge("container_spec_cpu_period", "Period of the CPU quota in microseconds."), nil, func(r *reading) cgroup.Figure { return r.more.CPU.Period }},
	{gauge("container_spec_cpu_quota", "CPU quota in microseconds of each period."), nil, func(r *reading) cgroup.Figure { return r.more.CPU.Quota }},
	{gauge("container_spec_cpu_shares", "Shares of the CPU."), nil, cpuShares},
	{gauge("container_spec_memory_limit_bytes", "Limit of memory, 0 for none."), nil, func(r *reading) cgroup.Figure {
		return cgroup.Figure{Value: r.Memory.Limit, Known: r.Detail != nil}
	}},
	{gauge("container_spec_memory_swap_limit_bytes", "Limit of memory and swap together, 0 for none."), nil, func(r *reading) cgroup.Figure { return r.more.Memory.MemSwLimit }},
	{gauge("container_spec_memory_reservation_limit_bytes", "Memory that is kept for it as far as possible, 0 for none."), nil, func(r *reading) cgroup.Figure { return r.more.Memory.Reserved }},
}

// cpuShares are those asked for, as on v2 many shares make one weight.
func cpuShares(r *reading) cgroup.Figure {
	if r.shares > 0 && r.more.CPU.Shares.Known {
		return sure(r.shares)
	}
	return r.more.CPU.Shares
}

var pressureMetrics = []usageMetric{
	{counter("container_pressure_cpu_waiting_seconds_total", "Time in which a task waited for CPU."), nil, func(r *reading) cgroup.Figure { return waiting(r.CPUPressure) }},
	{counter("container_pressure_cpu_stalled_seconds_total", "Time in which no task went on for want of CPU."), nil, func(r *reading) cgroup.Figure { return stalled(r.CPUPressure) }},
	{counter("container_pressure_memory_waiting_seconds_total", "Time in which a task waited for memory."), nil, func(r *reading) cgroup.Figure { return waiting(r.MemoryPressure) }},
	{counter("container_pressure_memory_stalled_seconds_total", "Time in which no task went on for want of memory."), nil, func(r *reading) cgroup.Figure { return stalled(r.MemoryPressure) }},
	{counter("container_pressure_io_waiting_seconds_total", "Time in which a task waited for I/O."), nil, func(r *reading) cgroup.Figure { return waiting(r.IOPressure) }},
	{counter("container_pressure_io_stalled_seconds_total", "Time in which no task went on for want of I/O."), nil, func(r *reading) cgroup.Figure { return stalled(r.IOPressure) }},
}

func waiting(p *cgroup.Pressure) cgroup.Figure {
	if p == nil {
		return cgroup.Figure{}
	}
	return sure(uint64(p.Some.Total / time.Second))
}

func stalled(p *cgroup.Pressure) cgroup.Figure {
	if p == nil {
		return cgroup.Figure{}
	}
	return sure(uint64(p.Full.Total / time.Second))
}

func sure(v uint64) cgroup.Figure { return cgroup.Figure{Value: v, Known: true} }

// inSeconds makes whole seconds of nanoseconds.
func inSeconds(f cgroup.Figure) cgroup.Figure {
	return cgroup.Figure{Value: f.Value / uint64(time.Second), Known: f.Known}
}

// addUsage adds what the reading tells, device by device too.
func (s *sampler) addUsage(r *reading) {
	for _, m := range usageMetrics {
		s.know(m.metric, m.read(r), m.values...)
	}
	for _, d := range r.more.Devices {
		s.addDevice(d)
	}
}
