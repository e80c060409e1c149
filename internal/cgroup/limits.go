package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Limit is what one control file of a cgroup said at some moment.
type Limit struct {
	Controller string `json:"controller,omitempty"` // that of the hierarchy on v1
	File       string `json:"file"`
	Value      string `json:"value"`
}

// limitFiles are the control files that an update of limits may write, by
// controller; what the kernel does not have is passed over.
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

// noLimit is what takes a device out of a file that lists devices.
var noLimit = map[string]string{
	"io.max": "rbps=max wbps=max riops=max wiops=max", "io.weight": "default", "io.bfq.weight": "default",
	"blkio.throttle.read_bps_device": "0", "blkio.throttle.write_bps_device": "0",
	"blkio.throttle.read_iops_device": "0", "blkio.throttle.write_iops_device": "0",
	"blkio.weight_device": "0", "blkio.bfq.weight_device": "0",
}

// Limits reads the limits of a cgroup, those of hugepages and of the further
// files of the unified hierarchy included. Of a cgroup that is gone there are none.
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

// setPasses is how often limits are written that hold each other up: memory may
// not be above memory with swap, nor a quota above what its parent allows. Two
// would do for the orders known.
const setPasses = 3

// SetLimits makes a cgroup's limits what they were when they were read. Those
// that are so already are not touched. A cgroup that is gone needs none.
func (t *Tree) SetLimits(p string, limits []Limit) error {
	var errs []error
	for range setPasses {
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
	return fmt.Errorf("put back the limits of cgroup %s: %w", p, errors.Join(errs...))
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
		// An empty list is a line too; without a byte nothing would be written.
		if err := write(file, line+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// limitLines are the writes that lead from one content of a control file to
// another: the kernel takes one line at a time, and a device that is not named
// keeps what it has.
func limitLines(file, now, value string) []string {
	var lines []string
	none, listed := noLimit[file]
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

func readLimit(file string) (string, error) {
	b, err := os.ReadFile(file)
	return strings.TrimRight(string(b), "\n"), err
}

// write writes to a control file that exists. Opened as os.WriteFile does, one
// that the kernel lacks would be told as "permission denied".
func write(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
