package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Stats is what a cgroup has used. Figures that the kernel does not give are 0.
type Stats struct {
	Time     time.Time
	CPUUsage uint64 // nanoseconds since the cgroup was made
	Memory   Memory
	Pids     uint64 // tasks now
	// CPUPressure, MemoryPressure and IOPressure are nil where the kernel does
	// not measure them: on v1, or without PSI.
	CPUPressure, MemoryPressure, IOPressure *Pressure
	// Detail reads what metrics tell besides, at most once for these Stats and
	// only if it is called. It is nil for what is not in a cgroup, like a guest's.
	Detail func() Detail
}

// NoLimit is a limit that is not set.
const NoLimit = math.MaxUint64

// Memory is in bytes but for the faults.
type Memory struct {
	Usage      uint64 // all that is charged, page cache included
	WorkingSet uint64 // usage less the inactive file pages: what cannot be had back easily
	RSS        uint64 // anonymous memory, transparent huge pages included
	Limit      uint64 // 0 for none
	Swap       uint64
	SwapLimit  uint64 // NoLimit for none: 0 means that nothing may be swapped
	PageFaults uint64
	MajorFault uint64
}

// Stats reads the figures of a cgroup. It fails with fs.ErrNotExist when the
// cgroup is gone.
func (t *Tree) Stats(p string) (Stats, error) {
	s := Stats{Time: time.Now()}
	var err error
	if t.v2 {
		err = t.statsV2(p, &s)
	} else {
		err = t.statsV1(p, &s)
	}
	if err != nil {
		return Stats{}, fmt.Errorf("stats of cgroup %s: %w", p, err)
	}
	return s, nil
}

func (t *Tree) statsV2(p string, s *Stats) error {
	dir := t.Dir("", p)
	cpu, err := readKeyed(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return err
	}
	s.CPUUsage = cpu["usage_usec"] * 1000
	// A cgroup without the memory controller has no such file: a threaded cgroup,
	// or one whose parent does not enable the controller.
	mem, err := readKeyed(filepath.Join(dir, "memory.stat"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	m := &s.Memory
	m.Usage = readUint(filepath.Join(dir, "memory.current"))
	m.Limit = readUint(filepath.Join(dir, "memory.max"))
	swap := readFigure(filepath.Join(dir, "memory.swap.current"))
	m.Swap, m.SwapLimit = swap.Value, swapLimitV2(dir)
	m.RSS, m.PageFaults, m.MajorFault = mem["anon"], mem["pgfault"], mem["pgmajfault"]
	m.WorkingSet = sub(m.Usage, mem["inactive_file"])
	s.Pids = readUint(filepath.Join(dir, "pids.current"))
	s.CPUPressure = readPressure(filepath.Join(dir, "cpu.pressure"))
	s.MemoryPressure = readPressure(filepath.Join(dir, "memory.pressure"))
	s.IOPressure = readPressure(filepath.Join(dir, "io.pressure"))
	d, limit := foundV2(cpu, mem), m.Limit
	d.Memory.Swap = swap
	s.Detail = sync.OnceValue(func() Detail { return t.detailV2(p, d, limit) })
	return nil
}

// swapLimitV2 is NoLimit for "max" and where swap is not accounted for.
func swapLimitV2(dir string) uint64 {
	b, err := os.ReadFile(filepath.Join(dir, "memory.swap.max"))
	if err != nil {
		return NoLimit
	}
	v, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return NoLimit
	}
	return v
}

// swapLimitV1 is what the limit of memory and swap together leaves for swap.
func swapLimitV1(dir string, memory uint64) uint64 {
	both := unlimited(readUint(filepath.Join(dir, "memory.memsw.limit_in_bytes")))
	if both == 0 || memory == 0 {
		return NoLimit
	}
	return sub(both, memory)
}

func (t *Tree) statsV1(p string, s *Stats) error {
	b, err := os.ReadFile(filepath.Join(t.Dir("cpuacct", p), "cpuacct.usage"))
	if err != nil {
		return err
	}
	s.CPUUsage, _ = strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	dir := t.Dir("memory", p)
	mem, err := readKeyed(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return err
	}
	m := &s.Memory
	m.Usage = readUint(filepath.Join(dir, "memory.usage_in_bytes"))
	m.Limit = unlimited(readUint(filepath.Join(dir, "memory.limit_in_bytes")))
	m.RSS, m.Swap = mem["total_rss"], mem["total_swap"]
	m.PageFaults, m.MajorFault = mem["total_pgfault"], mem["total_pgmajfault"]
	m.WorkingSet = sub(m.Usage, mem["total_inactive_file"])
	m.SwapLimit = swapLimitV1(dir, m.Limit)
	if dir := t.Dir("pids", p); dir != "" {
		s.Pids = readUint(filepath.Join(dir, "pids.current"))
	}
	d := foundV1(mem)
	s.Detail = sync.OnceValue(func() Detail { return t.detailV1(p, d) })
	return nil
}

// unlimited turns v1's "no limit", the greatest page-aligned int64, into 0.
func unlimited(v uint64) uint64 {
	if v >= 1<<62 {
		return 0
	}
	return v
}

// sub is a-b, and 0 where two figures read one after the other disagree.
func sub(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}

// readUint reads a file of one number; "max" and what cannot be read are 0.
func readUint(file string) uint64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	v, _ := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return v
}

// readKeyed reads a flat keyed file: lines of a word and a number.
func readKeyed(file string) (map[string]uint64, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	m := make(map[string]uint64, 64)
	for line := range strings.Lines(string(b)) {
		k, v, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if n, err := strconv.ParseUint(v, 10, 64); ok && err == nil {
			m[k] = n
		}
	}
	return m, nil
}
