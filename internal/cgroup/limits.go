package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Limit is the content of one control file of a cgroup.
type Limit struct {
	Controller string `json:"controller,omitempty"` // selects the hierarchy on v1
	File       string `json:"file"`
	Value      string `json:"value"`
}

// limitFilesV1 and limitFilesV2 are the control files that an update of limits may write, by
// controller. Files that the kernel does not have are ignored.
var (
	limitFilesV1 = map[string][]string{
		"cpu": {
			"cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.cfs_burst_us", "cpu.idle", "cpu.rt_period_us", "cpu.rt_runtime_us",
		},
		"cpuset": {"cpuset.cpus", "cpuset.mems"},
		"memory": {"memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.swappiness"},
		"pids":   {"pids.max"},
		"blkio": {
			"blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device",
			"blkio.throttle.read_iops_device", "blkio.throttle.write_iops_device",
			"blkio.weight", "blkio.weight_device", "blkio.bfq.weight", "blkio.bfq.weight_device",
		},
	}
	limitFilesV2 = map[string][]string{"": {
		"cpu.weight", "cpu.max", "cpu.max.burst", "cpu.idle", "cpuset.cpus", "cpuset.mems",
		"memory.max", "memory.swap.max", "memory.high", "memory.low", "memory.min", "pids.max",
		"io.max", "io.weight", "io.bfq.weight",
	}}
)

// resetValue is the value that removes the limit of a device from a file that lists devices.
var resetValue = map[string]string{
	"io.max": "rbps=max wbps=max riops=max wiops=max", "io.weight": "default", "io.bfq.weight": "default",
	"blkio.throttle.read_bps_device": "0", "blkio.throttle.write_bps_device": "0",
	"blkio.throttle.read_iops_device": "0", "blkio.throttle.write_iops_device": "0",
	"blkio.weight_device": "0", "blkio.bfq.weight_device": "0",
}

// Limits reads the limits of a cgroup, including huge pages and the additional files unified on
// v2. It returns none for a cgroup that does not exist.
func (t *Tree) Limits(p string, unified ...string) ([]Limit, error) {
	files := maps.Clone(limitFilesV1)
	if t.v2 {
		files = map[string][]string{"": append(slices.Clone(limitFilesV2[""]), unified...)}
	}
	if controller, _ := t.hugetlb(); controller != nil {
		files[*controller] = append(files[*controller], t.hugetlbFiles(p)...)
	}
	var out []Limit
	for _, controller := range slices.Sorted(maps.Keys(files)) {
		dir := t.Dir(controller, p)
		if dir == "" {
			continue
		}
		for _, file := range slices.Compact(slices.Sorted(slices.Values(files[controller]))) {
			value, err := readLimit(filepath.Join(dir, file))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("limits of cgroup %s: %w", p, err)
			}
			out = append(out, Limit{controller, file, value})
		}
	}
	return out, nil
}

// setAttempts is how often SetLimits writes limits that depend on each other: the limit of
// memory must not exceed the limit of memory and swap, and a quota must not exceed the quota of the
// parent. Two attempts would suffice for the known dependencies.
const setAttempts = 3

// SetLimits restores limits that Limits has returned. It does not write limits that already
// have the right value. It is no error if the cgroup does not exist.
func (t *Tree) SetLimits(p string, limits []Limit) error {
	var errs []error
	for range setAttempts {
		errs = nil
		for _, l := range limits {
			if err := setLimit(filepath.Join(t.Dir(l.Controller, p), l.File), l.Value); err != nil {
				errs = append(errs, err)
			}
		}
		if len(errs) == 0 {
			return nil
		}
	}
	return fmt.Errorf("restore limits of cgroup %s: %w", p, errors.Join(errs...))
}

func setLimit(file, value string) error {
	now, err := readLimit(file)
	if errors.Is(err, fs.ErrNotExist) || err == nil && now == value {
		return nil
	}
	if err != nil {
		return err
	}
	for _, line := range limitLines(filepath.Base(file), now, value) {
		// Write the line break also for an empty list, because a write of 0 bytes has no
		// effect.
		if err := write(file, line+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// limitLines returns the lines to write, to change the content of a control file from now to
// value. The kernel accepts one line per write, and a device that is not named keeps its limit.
func limitLines(file, now, value string) []string {
	var lines []string
	none, listed := resetValue[file]
	if !listed {
		return []string{value}
	}
	for line := range strings.Lines(now) {
		device, _, _ := strings.Cut(line, " ")
		if !strings.Contains("\n"+value, "\n"+device+" ") {
			lines = append(lines, device+" "+none)
		}
	}
	if value == "" {
		return lines
	}
	return append(lines, strings.Split(value, "\n")...)
}

// Reclaim makes the kernel reclaim memory from a cgroup until the cgroup uses at most limit. It
// returns the memory in use afterwards. On v2, a limit below the usage would kill processes, so
// memory must be reclaimed first. On v1, Reclaim does nothing: when the limit is set, the
// kernel reclaims memory itself and refuses the limit if that does not suffice.
func (t *Tree) Reclaim(p string, limit uint64) (used uint64) {
	if !t.v2 {
		return readUint(filepath.Join(t.Dir("memory", p), "memory.usage_in_bytes"))
	}
	dir := t.Dir("", p)
	current := filepath.Join(dir, "memory.current")
	if used = readUint(current); used > limit {
		// The file exists since Linux 5.19. The write fails if the kernel cannot reclaim as
		// much as requested.
		_ = write(filepath.Join(dir, "memory.reclaim"), strconv.FormatUint(used-limit, 10))
		used = readUint(current)
	}
	return used
}
