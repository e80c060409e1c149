package cgroup

import (
	"math"
	"path/filepath"
	"strings"
)

// Optional is a number that the kernel may not provide.
type Optional struct {
	Value uint64
	Valid bool
}

// Detail contains the values of a cgroup that only metrics need. Reading them takes more files
// than reading Stats.
type Detail struct {
	CPU    CPUDetail
	Memory MemoryDetail
	// Devices are the block devices with I/O of the cgroup.
	Devices   []DeviceIO
	HugePages []HugePages
	Processes Optional // number of processes in the cgroup and below it
	PIDs      []int    // pids of these processes
	MaxTasks  Optional // 0 for no limit
}

// CPUDetail contains times in nanoseconds, except for the limits.
type CPUDetail struct {
	User, System                      Optional
	Periods, Throttled, ThrottledTime Optional
	Period, Quota                     Optional // in microseconds; Quota is not valid without a limit
	Shares                            Optional
}

// MemoryDetail contains bytes, except for the counts.
type MemoryDetail struct {
	Cache, Mapped, Kernel, Swap, Peak Optional
	ActiveFile, InactiveFile          Optional // page cache that was used recently, and not recently
	ActiveAnon, InactiveAnon          Optional // anonymous memory that was used recently, and not recently
	AnonTHP, ShmemTHP, FileTHP        Optional // in transparent huge pages: anonymous, shared, and page cache
	Faults, MajorFaults               Optional
	OwnFaults, OwnMajorFaults         Optional // without cgroups below; only on v1
	LimitHits                         Optional // number of times that the limit was reached
	OOMKills                          Optional // on v1 without cgroups below
	MemSwLimit                        Optional // memory and swap together; 0 for none
	Reserved                          Optional
}

// userHZ is the unit of cpuacct.stat in nanoseconds. It is a hundredth of a second on every
// architecture that Go supports.
const userHZ = 10_000_000

// baseDetailV2 returns the part of the detail that is in files that Stats reads anyway.
func baseDetailV2(cpu, mem map[string]uint64) Detail {
	const micro = 1000
	return Detail{
		CPU: CPUDetail{
			User: field(cpu, "user_usec").times(micro), System: field(cpu, "system_usec").times(micro),
			Periods: field(cpu, "nr_periods"), Throttled: field(cpu, "nr_throttled"), ThrottledTime: field(cpu, "throttled_usec").times(micro),
		},
		Memory: MemoryDetail{
			Cache: field(mem, "file"), Mapped: field(mem, "file_mapped"), Kernel: field(mem, "kernel"), // kernel since Linux 5.18
			ActiveFile: field(mem, "active_file"), InactiveFile: field(mem, "inactive_file"),
			ActiveAnon: field(mem, "active_anon"), InactiveAnon: field(mem, "inactive_anon"),
			AnonTHP: field(mem, "anon_thp"), ShmemTHP: field(mem, "shmem_thp"), FileTHP: field(mem, "file_thp"), // the latter two since Linux 5.19
			Faults: field(mem, "pgfault"), MajorFaults: field(mem, "pgmajfault"),
		},
	}
}

func baseDetailV1(mem map[string]uint64) Detail {
	return Detail{Memory: MemoryDetail{
		Cache: field(mem, "total_cache"), Mapped: field(mem, "total_mapped_file"), Swap: field(mem, "total_swap"),
		ActiveFile: field(mem, "total_active_file"), InactiveFile: field(mem, "total_inactive_file"),
		ActiveAnon: field(mem, "total_active_anon"), InactiveAnon: field(mem, "total_inactive_anon"), AnonTHP: field(mem, "total_rss_huge"),
		Faults: field(mem, "total_pgfault"), MajorFaults: field(mem, "total_pgmajfault"),
		OwnFaults: field(mem, "pgfault"), OwnMajorFaults: field(mem, "pgmajfault"),
	}}
}

// detailV2 adds the values that Stats has not read.
func (t *Tree) detailV2(p string, d Detail, limit uint64) Detail {
	dir := t.Dir("", p)
	quota, period, _ := strings.Cut(readText(filepath.Join(dir, "cpu.max")), " ")
	d.CPU.Quota, d.CPU.Period = parseOptional(quota), parseOptional(period)
	d.CPU.Shares = sharesOfWeight(readOptional(filepath.Join(dir, "cpu.weight")))
	m := &d.Memory
	m.Peak = readOptional(filepath.Join(dir, "memory.peak")) // since Linux 5.19
	if events, err := readKeyed(filepath.Join(dir, "memory.events")); err == nil {
		m.LimitHits, m.OOMKills = field(events, "max"), field(events, "oom_kill")
	}
	m.MemSwLimit = memSwLimitV2(limit, readText(filepath.Join(dir, "memory.swap.max")))
	m.Reserved = maxOptional(readOptional(filepath.Join(dir, "memory.min")), readOptional(filepath.Join(dir, "memory.low")))
	d.Devices = parseIOStat(readText(filepath.Join(dir, "io.stat")))
	d.MaxTasks = parseLimit(readText(filepath.Join(dir, "pids.max")))
	d.PIDs, d.Processes = t.countProcesses(p)
	d.HugePages = t.hugePages(p)
	return d
}

// detailV1 adds the values of the hierarchies of cgroup v1.
func (t *Tree) detailV1(p string, d Detail) Detail {
	if stat, err := readKeyed(filepath.Join(t.Dir("cpuacct", p), "cpuacct.stat")); err == nil {
		d.CPU.User, d.CPU.System = field(stat, "user").times(userHZ), field(stat, "system").times(userHZ)
	}
	cpu := t.Dir("cpu", p)
	if stat, err := readKeyed(filepath.Join(cpu, "cpu.stat")); err == nil {
		d.CPU.Periods, d.CPU.Throttled, d.CPU.ThrottledTime = field(stat, "nr_periods"), field(stat, "nr_throttled"), field(stat, "throttled_time")
	}
	d.CPU.Period = readOptional(filepath.Join(cpu, "cpu.cfs_period_us"))
	d.CPU.Quota = readOptional(filepath.Join(cpu, "cpu.cfs_quota_us")) // -1, for no limit, is not valid
	d.CPU.Shares = readOptional(filepath.Join(cpu, "cpu.shares"))
	dir, m := t.Dir("memory", p), &d.Memory
	m.Kernel = readOptional(filepath.Join(dir, "memory.kmem.usage_in_bytes"))
	m.Peak = readOptional(filepath.Join(dir, "memory.max_usage_in_bytes"))
	m.LimitHits = readOptional(filepath.Join(dir, "memory.failcnt"))
	if oom, err := readKeyed(filepath.Join(dir, "memory.oom_control")); err == nil {
		m.OOMKills = field(oom, "oom_kill") // since Linux 4.13
	}
	m.MemSwLimit = readOptional(filepath.Join(dir, "memory.memsw.limit_in_bytes"))
	m.MemSwLimit.Value = unlimited(m.MemSwLimit.Value)
	m.Reserved = readOptional(filepath.Join(dir, "memory.soft_limit_in_bytes"))
	m.Reserved.Value = unlimited(m.Reserved.Value)
	d.Devices = t.devicesV1(p)
	if pids := t.Dir("pids", p); pids != "" {
		d.MaxTasks = parseLimit(readText(filepath.Join(pids, "pids.max")))
	}
	d.PIDs, d.Processes = t.countProcesses(p)
	d.HugePages = t.hugePages(p)
	return d
}

// countProcesses returns the processes of the cgroup and their number.
func (t *Tree) countProcesses(p string) ([]int, Optional) {
	pids, err := t.Pids(p)
	return pids, Optional{uint64(len(pids)), err == nil}
}

// sharesOfWeight converts a weight of v2 to the shares of v1 from which current OCI runtimes
// compute that weight. Older runtimes used a linear function. The curve goes through (2, 1),
// (1024, 100) and (262144, 10000), with log10(weight) = (a² + 125a)/612 - 7/34 and a =
// log2(shares). An idle cgroup has the weight 0, which corresponds to no number of shares.
func sharesOfWeight(weight Optional) Optional {
	if weight.Value == 0 {
		return Optional{}
	}
	c := 612 * (math.Log10(float64(weight.Value)) + 7.0/34)
	a := (math.Sqrt(125*125+4*c) - 125) / 2
	return Optional{uint64(math.Round(math.Exp2(a))), weight.Valid}
}

// memSwLimitV2 returns the sum of the limits of memory and of swap. The sum has no limit if one
// of them has none.
func memSwLimitV2(memory uint64, swap string) Optional {
	if swap == "" {
		return Optional{}
	}
	s := parseOptional(swap)
	if memory == 0 || !s.Valid {
		return Optional{0, true}
	}
	return Optional{memory + s.Value, true}
}

// maxOptional returns the greater of two values. It is valid if one of the values is valid.
func maxOptional(a, b Optional) Optional {
	return Optional{max(a.Value, b.Value), a.Valid || b.Valid}
}

// parseLimit parses the content of a control file with a limit. It returns 0 for "max".
func parseLimit(text string) Optional {
	if text == "max" {
		return Optional{0, true}
	}
	return parseOptional(text)
}

func (f Optional) times(n uint64) Optional { return Optional{f.Value * n, f.Valid} }

// field returns a value of a flat keyed file.
func field(keyed map[string]uint64, key string) Optional {
	v, ok := keyed[key]
	return Optional{v, ok}
}
