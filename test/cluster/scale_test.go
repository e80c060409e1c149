package cluster

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// podsPerNode is the number of pods of TestScale on each node.
const podsPerNode = 100

// TestScale runs many pods on each node, and reports the time until all of them run, what the runtime needs
// for them, and how long the kubelet takes to list them.
func TestScale(t *testing.T) {
	if testing.Short() {
		t.Skip("200 pods take minutes")
	}
	s := newSpace(t)
	count := podsPerNode * len(suite.Nodes)
	before := usage(t)
	began := time.Now()
	s.apply(workload("Deployment", "many", fmt.Sprintf(`"replicas": %d, "progressDeadlineSeconds": 1200`, count), spread("many"),
		container("main", busybox, "exec sleep 100000", `"imagePullPolicy": "IfNotPresent"`)))
	eventually(t, 240*time.Second, func() error {
		running := 0
		for _, p := range s.pods("app=many") {
			if p.Status.Phase == corev1.PodRunning {
				running++
			}
		}
		if running != count {
			return fmt.Errorf("%d pods run, want %d", running, count)
		}
		return nil
	})
	t.Logf("%d pods run after %v", count, time.Since(began).Round(100*time.Millisecond))
	after := usage(t)
	for i, n := range suite.Nodes {
		t.Logf("%s: the runtime used %.1f s of CPU time for %d pods, and has %d MiB of resident memory (%d MiB before)", n.Name,
			after[i].cpu-before[i].cpu, podsPerNode, after[i].memory>>20, before[i].memory>>20)
	}
	for _, n := range suite.Nodes {
		metrics, err := suite.API(t.Context(), "GET", "/api/v1/nodes/"+n.Name+"/proxy/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		sum, count := metric(string(metrics), "kubelet_pleg_relist_duration_seconds_sum"), metric(string(metrics), "kubelet_pleg_relist_duration_seconds_count")
		if count == 0 {
			t.Errorf("%s: the kubelet has no relist durations", n.Name)
			continue
		}
		t.Logf("%s: the kubelet's relist takes %.1f ms on average", n.Name, 1000*sum/count)
	}
	began = time.Now()
	s.kubectl("delete", "deployment", "many", "--wait=false")
	eventually(t, 240*time.Second, func() error {
		if left := len(s.pods("app=many")); left > 0 {
			return fmt.Errorf("%d pods exist", left)
		}
		return nil
	})
	t.Logf("%d pods are deleted after %v", count, time.Since(began).Round(100*time.Millisecond))
}

// resources are the CPU time in seconds and the resident memory in bytes of a process.
type resources struct {
	cpu    float64
	memory int64
}

// usage returns what the runtime of each node has used.
func usage(t *testing.T) []resources {
	t.Helper()
	var all []resources
	for _, n := range suite.Nodes {
		pid, err := n.Machine.HostPid(Runtime)
		if err != nil {
			t.Fatal(err)
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		// See proc_pid_stat(5); the fields after the name in parentheses begin with the third one.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		user, _ := strconv.ParseFloat(fields[11], 64)
		system, _ := strconv.ParseFloat(fields[12], 64)
		pages, _ := strconv.ParseInt(fields[21], 10, 64)
		const ticks = 100 // per second, on all architectures of Linux
		all = append(all, resources{(user + system) / ticks, pages * int64(os.Getpagesize())})
	}
	return all
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
