package stats

import (
	"time"

	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/proc"
)

var cpuMetrics = []cgroupMetric{
	{counter("container_cpu_usage_seconds_total", "CPU time consumed in seconds.", "cpu"), []string{"total"}, func(r *reading) cgroup.Optional { return toSeconds(valid(r.CPUUsage)) }},
	{counter("container_cpu_user_seconds_total", "CPU time consumed in user mode in seconds."), nil, func(r *reading) cgroup.Optional { return toSeconds(r.detail.CPU.User) }},
	{counter("container_cpu_system_seconds_total", "CPU time consumed in the kernel in seconds."), nil, func(r *reading) cgroup.Optional { return toSeconds(r.detail.CPU.System) }},
	{counter("container_cpu_cfs_periods_total", "Periods of the CPU quota that have passed."), nil, func(r *reading) cgroup.Optional { return r.detail.CPU.Periods }},
	{counter("container_cpu_cfs_throttled_periods_total", "Periods in which the CPU quota was used up."), nil, func(r *reading) cgroup.Optional { return r.detail.CPU.Throttled }},
	{counter("container_cpu_cfs_throttled_seconds_total", "Time spent waiting for CPU quota in seconds."), nil, func(r *reading) cgroup.Optional { return toSeconds(r.detail.CPU.ThrottledTime) }},
	{gauge("container_spec_cpu_period", "Period of the CPU quota in microseconds."), nil, func(r *reading) cgroup.Optional { return r.detail.CPU.Period }},
	{gauge("container_spec_cpu_quota", "CPU quota in microseconds of each period."), nil, func(r *reading) cgroup.Optional { return r.detail.CPU.Quota }},
	{gauge("container_spec_cpu_shares", "Shares of the CPU."), nil, cpuShares},
}

// cpuShares returns the CPU shares in the container's config, or the CPU shares of the
// cgroup if the config has none. A cgroup of v2 has only a weight, to which several numbers of shares are
// rounded.
func cpuShares(r *reading) cgroup.Optional {
	if r.cpuShares > 0 && r.detail.CPU.Shares.Valid {
		return valid(r.cpuShares)
	}
	return r.detail.CPU.Shares
}

// pressureMetrics are the metrics of pressure stall information (PSI).
var pressureMetrics = []cgroupMetric{
	{counter("container_pressure_cpu_waiting_seconds_total", "Time in which at least one task waited for CPU."), nil, func(r *reading) cgroup.Optional { return someStalled(r.CPUPressure) }},
	{counter("container_pressure_cpu_stalled_seconds_total", "Time in which all tasks waited for CPU."), nil, func(r *reading) cgroup.Optional { return allStalled(r.CPUPressure) }},
	{counter("container_pressure_memory_waiting_seconds_total", "Time in which at least one task waited for memory."), nil, func(r *reading) cgroup.Optional { return someStalled(r.MemoryPressure) }},
	{counter("container_pressure_memory_stalled_seconds_total", "Time in which all tasks waited for memory."), nil, func(r *reading) cgroup.Optional { return allStalled(r.MemoryPressure) }},
	{counter("container_pressure_io_waiting_seconds_total", "Time in which at least one task waited for I/O."), nil, func(r *reading) cgroup.Optional { return someStalled(r.IOPressure) }},
	{counter("container_pressure_io_stalled_seconds_total", "Time in which all tasks waited for I/O."), nil, func(r *reading) cgroup.Optional { return allStalled(r.IOPressure) }},
}

// someStalled returns the seconds in which at least one task was stalled.
func someStalled(p *cgroup.Pressure) cgroup.Optional {
	if p == nil {
		return cgroup.Optional{}
	}
	return valid(uint64(p.Some.Total / time.Second))
}

// allStalled returns the seconds in which all tasks were stalled.
func allStalled(p *cgroup.Pressure) cgroup.Optional {
	if p == nil {
		return cgroup.Optional{}
	}
	return valid(uint64(p.Full.Total / time.Second))
}

var taskMetrics = []cgroupMetric{
	{gauge("container_processes", "Number of processes."), nil, func(r *reading) cgroup.Optional { return r.detail.Processes }},
	{gauge("container_threads", "Number of tasks."), nil, tasks},
	{gauge("container_threads_max", "Limit of tasks, 0 for none."), nil, func(r *reading) cgroup.Optional { return r.detail.MaxTasks }},
}

// tasks returns the number of tasks. 0 is a number only for a cgroup with a pids
// controller, which has a limit, too. A guest kernel reports tasks without a limit.
func tasks(r *reading) cgroup.Optional {
	return cgroup.Optional{Value: r.Pids, Valid: r.Pids > 0 || r.detail.MaxTasks.Valid}
}

var (
	openFilesLimit  = gauge("container_ulimits_soft", "Soft limits of the first process.", "ulimit")
	fileDescriptors = gauge("container_file_descriptors", "Open file descriptors of all processes.")
	sockets         = gauge("container_sockets", "Open sockets of all processes.")

	processMetrics = []metric{openFilesLimit, fileDescriptors, sockets}
)

// addProcesses adds the metrics that are read from the container's processes in
// /proc. pid is the first process.
//
// A pod does not have these metrics: the daemon would have to read every process a
// second time.
func (c *collector) addProcesses(r *reading, pid int) {
	// The host does not see the processes of a guest kernel.
	if r.Detail == nil {
		return
	}
	// cAdvisor reports only this limit.
	if n, ok := proc.OpenFilesLimit(pid); ok {
		c.add(openFilesLimit, n, "max_open_files")
	}
	if !r.detail.Processes.Valid {
		return
	}
	if d, ok := proc.CountDescriptors(r.detail.PIDs); ok {
		c.add(fileDescriptors, d.Files)
		c.add(sockets, d.Sockets)
	}
}
