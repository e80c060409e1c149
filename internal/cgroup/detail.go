package cgroup

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Figure is a number that the host may not know.
type Figure struct {
	Value uint64
	Known bool
}

// Detail is what a cgroup tells besides Stats, for those who ask for metrics.
// It takes more files than Stats does.
type Detail struct {
	CPU    CPUDetail
	Memory MemoryDetail
	// Devices are those that I/O was counted on.
	Devices   []DeviceIO
	Processes Figure // in the cgroup and below it
	PIDs      []int  // of those processes
	MaxTasks  Figure // 0 for no limit
}

// CPUDetail has times in nanoseconds, but for the limits.
type CPUDetail struct {
	User, System                      Figure
	Periods, Throttled, ThrottledTime Figure
	Period, Quota                     Figure // microseconds; without a limit the quota is not known
	Shares                            Figure
}

// MemoryDetail is in bytes but for what is counted.
type MemoryDetail struct {
	Cache, Mapped, Kernel, Swap, Peak Figure
	ActiveFile, InactiveFile          Figure // page cache by how lately it was used
	Faults, MajorFaults               Figure
	OwnFaults, OwnMajorFaults         Figure // without the cgroups below; v1 only
	LimitHits                         Figure // how often the limit was reached
	OOMKills                          Figure // on v1 without the cgroups below
	MemSwLimit                        Figure // memory and swap together, 0 for none
	Reserved                          Figure
}

// userHZ is the unit of cpuacct.stat, the same on every architecture that Go
// has: a hundredth of a second in nanoseconds.
const userHZ = 10_000_000

// foundV2 is the part of the detail that is in the files that Stats reads anyway.
func foundV2(cpu, mem map[string]uint64) Detail {
	const micro = 1000
	return Detail{
		CPU: CPUDetail{
			User: of(cpu, "user_usec").times(micro), System: of(cpu, "system_usec").times(micro),
			Periods: of(cpu, "nr_periods"), Throttled: of(cpu, "nr_throttled"), ThrottledTime: of(cpu, "throttled_usec").times(micro),
		},
		Memory: MemoryDetail{
			Cache: of(mem, "file"), Mapped: of(mem, "file_mapped"), Kernel: of(mem, "kernel"), // kernel since Linux 5.18
			ActiveFile: of(mem, "active_file"), InactiveFile: of(mem, "inactive_file"),
			Faults: of(mem, "pgfault"), MajorFaults: of(mem, "pgmajfault"),
		},
	}
}

func foundV1(mem map[string]uint64) Detail {
	return Detail{Memory: MemoryDetail{
		Cache: of(mem, "total_cache"), Mapped: of(mem, "total_mapped_file"), Swap: of(mem, "total_swap"),
		ActiveFile: of(mem, "total_active_file"), InactiveFile: of(mem, "total_inactive_file"),
		Faults: of(mem, "total_pgfault"), MajorFaults: of(mem, "total_pgmajfault"),
		OwnFaults: of(mem, "pgfault"), OwnMajorFaults: of(mem, "pgmajfault"),
	}}
}

// detailV2 completes what Stats has found on its way.
func (t *Tree) detailV2(p string, d Detail, limit uint64) Detail {
	dir := t.Dir("", p)
	quota, period, _ := strings.Cut(readText(filepath.Join(dir, "cpu.max")), " ")
	d.CPU.Quota, d.CPU.Period = parseFigure(quota), parseFigure(period)
	d.CPU.Shares = sharesOf(readFigure(filepath.Join(dir, "cpu.weight")))
	m := &d.Memory
	m.Peak = readFigure(filepath.Join(dir, "memory.peak")) // since Linux 5.19
	if events, err := readKeyed(filepath.Join(dir, "memory.events")); err == nil {
		m.LimitHits, m.OOMKills = of(events, "max"), of(events, "oom_kill")
	}
	m.MemSwLimit = bothLimitsV2(limit, readText(filepath.Join(dir, "memory.swap.max")))
	m.Reserved = greater(readFigure(filepath.Join(dir, "memory.min")), readFigure(filepath.Join(dir, "memory.low")))
	d.Devices = parseIOStat(readText(filepath.Join(dir, "io.stat")))
	d.MaxTasks = limitOrNone(readText(filepath.Join(dir, "pids.max")))
	d.PIDs, d.Processes = t.countProcesses(p)
	return d
}

func (t *Tree) detailV1(p string, d Detail) Detail {
	if stat, err := readKeyed(filepath.Join(t.Dir("cpuacct", p), "cpuacct.stat")); err == nil {
		d.CPU.User, d.CPU.System = of(stat, "user").times(userHZ), of(stat, "system").times(userHZ)
	}
	cpu := t.Dir("cpu", p)
	if stat, err := readKeyed(filepath.Join(cpu, "cpu.stat")); err == nil {
		d.CPU.Periods, d.CPU.Throttled, d.CPU.ThrottledTime = of(stat, "nr_periods"), of(stat, "nr_throttled"), of(stat, "throttled_time")
	}
	d.CPU.Period = readFigure(filepath.Join(cpu, "cpu.cfs_period_us"))
	d.CPU.Quota = readFigure(filepath.Join(cpu, "cpu.cfs_quota_us")) // -1 is no number of these
	d.CPU.Shares = readFigure(filepath.Join(cpu, "cpu.shares"))
	dir, m := t.Dir("memory", p), &d.Memory
	m.Kernel = readFigure(filepath.Join(dir, "memory.kmem.usage_in_bytes"))
	m.Peak = readFigure(filepath.Join(dir, "memory.max_usage_in_bytes"))
	m.LimitHits = readFigure(filepath.Join(dir, "memory.failcnt"))
	if oom, err := readKeyed(filepath.Join(dir, "memory.oom_control")); err == nil {
		m.OOMKills = of(oom, "oom_kill") // since Linux 4.13
	}
	m.MemSwLimit = readFigure(filepath.Join(dir, "memory.memsw.limit_in_bytes"))
	m.MemSwLimit.Value = unlimited(m.MemSwLimit.Value)
	m.Reserved = readFigure(filepath.Join(dir, "memory.soft_limit_in_bytes"))
	m.Reserved.Value = unlimited(m.Reserved.Value)
	d.Devices = t.devicesV1(p)
	if pids := t.Dir("pids", p); pids != "" {
		d.MaxTasks = limitOrNone(readText(filepath.Join(pids, "pids.max")))
	}
	d.PIDs, d.Processes = t.countProcesses(p)
	return d
}

func (t *Tree) countProcesses(p string) ([]int, Figure) {
	pids, err := t.Pids(p)
	return pids, Figure{uint64(len(pids)), err == nil}
}

// sharesOf turns a weight of v2 back into the shares of v1 that OCI runtimes
// now make it of; older ones used a straight line. The curve goes through (2, 1), (1024, 100) and
// (262144, 10000), with a = log2(shares) as log10(weight) = (a² + 125a)/612 - 7/34.
// An idle cgroup has the weight 0, which no number of shares gives.
func sharesOf(weight Figure) Figure {
	if weight.Value == 0 {
		return Figure{}
	}
	c := 612 * (math.Log10(float64(weight.Value)) + 7.0/34)
	a := (math.Sqrt(125*125+4*c) - 125) / 2
	return Figure{uint64(math.Round(math.Exp2(a))), weight.Known}
}

// bothLimitsV2 makes one limit of that on memory and that on swap. Without
// either there is none on their sum.
func bothLimitsV2(memory uint64, swap string) Figure {
	if swap == "" {
		return Figure{}
	}
	s := parseFigure(swap)
	if memory == 0 || !s.Known {
		return Figure{0, true}
	}
	return Figure{memory + s.Value, true}
}

// greater of two figures of which any may be unknown.
func greater(a, b Figure) Figure {
	return Figure{max(a.Value, b.Value), a.Known || b.Known}
}

// limitOrNone reads the content of a control file: "max" is no limit, or 0.
func limitOrNone(text string) Figure {
	if text == "max" {
		return Figure{0, true}
	}
	return parseFigure(text)
}

func (f Figure) times(n uint64) Figure { return Figure{f.Value * n, f.Known} }

func of(keyed map[string]uint64, key string) Figure {
	v, ok := keyed[key]
	return Figure{v, ok}
}

// readText returns what a file holds, "" for one that cannot be read.
func readText(file string) string {
	b, _ := os.ReadFile(file)
	return strings.TrimSpace(string(b))
}

func readFigure(file string) Figure { return parseFigure(readText(file)) }

func parseFigure(text string) Figure {
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return Figure{}
	}
	return Figure{v, true}
}
