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

// Stats contains the resource usage of a cgroup. Values that the kernel does not provide are 0.
type Stats struct {
	Time     time.Time
	CPUUsage uint64 // CPU time in nanoseconds since the cgroup was made
	Memory   Memory
	Pids     uint64 // current number of tasks
	// CPUPressure, MemoryPressure and IOPressure are nil if the kernel does not measure
	// pressure, that is on v1 or without PSI.
	CPUPressure, MemoryPressure, IOPressure *Pressure
	// Detail reads the additional values for metrics. It reads them at most once for these
	// Stats, when it is first called. It is nil for a container in a guest, which has no
	// cgroup.
	Detail func() Detail
}

// NoLimit is the value of a limit that is not set.
const NoLimit = math.MaxUint64

// Memory contains bytes, except for the page faults.
type Memory struct {
	Usage      uint64 // memory that is charged to the cgroup, including page cache
	WorkingSet uint64 // Usage without inactive file pages, which the kernel can reclaim easily
	RSS        uint64 // anonymous memory, including transparent huge pages
	Limit      uint64 // 0 for none
	Swap       uint64
	SwapLimit  uint64 // NoLimit for none; 0 forbids swap
	PageFaults uint64
	MajorFault uint64
}

// Stats reads the stats of a cgroup. It returns fs.ErrNotExist if the cgroup does not exist.
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

// statsV2 sets the stats of a cgroup of v2.
func (t *Tree) statsV2(p string, s *Stats) error {
	dir := t.Dir("", p)
	cpu, err := readKeyed(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return err
	}
	s.CPUUsage = cpu["usage_usec"] * 1000
	// The file is missing if the cgroup does not have the memory controller: in a threaded
	// cgroup, or if the parent does not enable the controller.
	mem, err := readKeyed(filepath.Join(dir, "memory.stat"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	m := &s.Memory
	m.Usage = readUint(filepath.Join(dir, "memory.current"))
	m.Limit = readUint(filepath.Join(dir, "memory.max"))
	swap := readOptional(filepath.Join(dir, "memory.swap.current"))
	m.Swap, m.SwapLimit = swap.Value, swapLimitV2(dir)
	m.RSS, m.PageFaults, m.MajorFault = mem["anon"], mem["pgfault"], mem["pgmajfault"]
	m.WorkingSet = sub(m.Usage, mem["inactive_file"])
	s.Pids = readUint(filepath.Join(dir, "pids.current"))
	s.CPUPressure = readPressure(filepath.Join(dir, "cpu.pressure"))
	s.MemoryPressure = readPressure(filepath.Join(dir, "memory.pressure"))
	s.IOPressure = readPressure(filepath.Join(dir, "io.pressure"))
	d, limit := baseDetailV2(cpu, mem), m.Limit
	d.Memory.Swap = swap
	s.Detail = sync.OnceValue(func() Detail { return t.detailV2(p, d, limit) })
	return nil
}

// swapLimitV2 returns NoLimit for "max", and if the kernel does not account for swap.
func swapLimitV2(dir string) uint64 {
	limit := readOptional(filepath.Join(dir, "memory.swap.max"))
	if !limit.Valid {
		return NoLimit
	}
	return limit.Value
}

// swapLimitV1 returns the limit of memory and swap together minus the limit of memory.
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
	d := baseDetailV1(mem)
	s.Detail = sync.OnceValue(func() Detail { return t.detailV1(p, d) })
	return nil
}

// unlimited returns 0 for "no limit" of v1, which is the greatest page-aligned int64.
func unlimited(v uint64) uint64 {
	if v >= 1<<62 {
		return 0
	}
	return v
}

// sub returns a-b, or 0 if b is greater: the files are not read at the same moment.
func sub(a, b uint64) uint64 {
	if b > a {
		return 0
	}
	return a - b
}

// Pressure is the time for which tasks waited for a resource (PSI, see
// Documentation/accounting/psi.rst of the kernel).
type Pressure struct {
	Some Stall // time in which at least one task waited
	Full Stall // time in which all tasks waited
}

// Stall is the time for which tasks waited. The averages are percentages over the last 10, 60
// and 300 seconds.
type Stall struct {
	Total                time.Duration
	Avg10, Avg60, Avg300 float64
}

// readPressure returns nil if the file does not exist, or cannot be read because PSI is
// disabled.
func readPressure(file string) *Pressure {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	p := &Pressure{}
	for line := range strings.Lines(string(b)) {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch kind {
		case "some":
			p.Some = parseStall(rest)
		case "full":
			p.Full = parseStall(rest)
		}
	}
	return p
}

// parseStall parses "avg10=0.00 avg60=0.00 avg300=0.00 total=0".
func parseStall(text string) Stall {
	var s Stall
	for field := range strings.FieldsSeq(text) {
		key, value, _ := strings.Cut(field, "=")
		if key == "total" {
			us, _ := strconv.ParseInt(value, 10, 64)
			s.Total = time.Duration(us) * time.Microsecond
			continue
		}
		v, _ := strconv.ParseFloat(value, 64)
		switch key {
		case "avg10":
			s.Avg10 = v
		case "avg60":
			s.Avg60 = v
		case "avg300":
			s.Avg300 = v
		}
	}
	return s
}
