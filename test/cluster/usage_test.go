package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/criserver/criserver/test/harness"
)

// usage is the resource usage of a node.
type usage struct {
	runtimeCPU float64 // seconds of CPU time of the runtime and of the processes that it has reaped
	nodeCPU    float64 // seconds of CPU time of all processes of the node
	runtime    int64   // proportional memory of the runtime in bytes
	helpers    int64   // proportional memory of its helpers in bytes: monitors, shims and pause processes
	processes  int     // number of the helpers
	relists    int     // number of times that the kubelet has listed the pods
	relistTime float64 // seconds that the kubelet has needed for these lists
}

// helperNames are the names in /proc/PID/comm of the helpers of container runtimes.
var helperNames = map[string]bool{"conmon": true, "containerd-shim": true, "pause": true}

// readUsage returns the resource usage of a node.
func readUsage(t *testing.T, n *Node) usage {
	t.Helper()
	pid, err := n.Machine.HostPid(Runtime)
	if err != nil {
		t.Fatal(err)
	}
	var u usage
	if u.runtimeCPU, err = processCPU(pid); err != nil {
		t.Fatal(err)
	}
	if u.nodeCPU, err = cgroupCPU(n.cgroup()); err != nil {
		t.Fatal(err)
	}
	if u.runtime, err = proportionalMemory(pid); err != nil {
		t.Fatal(err)
	}
	if err := u.addHelpers(n); err != nil {
		t.Fatal(err)
	}
	metrics, err := suite.API(t.Context(), "GET", "/api/v1/nodes/"+n.Name+"/proxy/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	u.relists = int(metric(string(metrics), "kubelet_pleg_relist_duration_seconds_count"))
	u.relistTime = metric(string(metrics), "kubelet_pleg_relist_duration_seconds_sum")
	return u
}

// relist returns the average duration of the kubelet's lists since former, in milliseconds.
func (u usage) relist(former usage) float64 {
	if u.relists == former.relists {
		return 0
	}
	return 1000 * (u.relistTime - former.relistTime) / float64(u.relists-former.relists)
}

// processCPU returns the CPU time of a process and of its reaped children in seconds, see proc_pid_stat(5).
func processCPU(pid int) (float64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The fields after the name in parentheses begin with the third one.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks float64
	for _, field := range fields[11:15] {
		value, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return 0, err
		}
		ticks += value
	}
	return ticks / 100, nil // on all architectures of Linux
}

// cgroupCPU returns the CPU time of a cgroup and its descendants in seconds.
func cgroupCPU(path string) (float64, error) {
	if !harness.Unified() {
		text, err := os.ReadFile(filepath.Join(cgroupMount, "cpuacct", path, "cpuacct.usage"))
		if err != nil {
			return 0, err
		}
		nanoseconds, err := strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
		return nanoseconds / 1e9, err
	}
	text, err := os.ReadFile(filepath.Join(cgroupMount, path, "cpu.stat"))
	if err != nil {
		return 0, err
	}
	return metric(string(text), "usage_usec") / 1e6, nil
}

// proportionalMemory returns the memory of a process in bytes; shared pages count in proportion.
func proportionalMemory(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "Pss:" {
			kilobytes, err := strconv.ParseInt(fields[1], 10, 64)
			return kilobytes << 10, err
		}
	}
	return 0, fmt.Errorf("memory of process %d: no line Pss", pid)
}

// addHelpers adds the helpers of the runtime in the cgroups of a node. Processes may end during the search.
func (u *usage) addHelpers(n *Node) error {
	found, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return err
	}
	for _, file := range found {
		name, err := os.ReadFile(file)
		if err != nil || !helperNames[strings.TrimSpace(string(name))] {
			continue
		}
		cgroups, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cgroup"))
		if err != nil || !strings.Contains(string(cgroups), ":"+n.cgroup()+"/") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return err
		}
		memory, err := proportionalMemory(pid)
		if errors.Is(err, fs.ErrNotExist) || memory == 0 && err != nil {
			continue
		}
		u.helpers += memory
		u.processes++
	}
	return nil
}

// metric returns the value of a metric without labels in the text format of Prometheus, or 0.
func metric(text, name string) float64 {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err == nil {
				return f
			}
		}
	}
	return 0
}
