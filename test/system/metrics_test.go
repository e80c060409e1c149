package system

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// metricKey returns the name of a metric with its labels, except those that identify the
// pod and the container.
func metricKey(m *cri.Metric, keys []string) string {
	name := strings.TrimPrefix(m.GetName(), "container_")
	for i, v := range m.GetLabelValues() {
		if k := keys[i]; !slices.Contains([]string{"container", "id", "image", "name", "namespace", "pod"}, k) {
			name += " " + k + "=" + v
		}
	}
	return name
}

// metrics returns the metrics of the only pod and of its only container.
func (n *node) metrics(t *testing.T) (pod, container map[string]uint64) {
	t.Helper()
	d, err := n.RuntimeService.ListMetricDescriptors(t.Context(), &cri.ListMetricDescriptorsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	keys := make(map[string][]string)
	for _, m := range d.GetDescriptors() {
		keys[m.GetName()] = m.GetLabelKeys()
	}
	r, err := n.RuntimeService.ListPodSandboxMetrics(t.Context(), &cri.ListPodSandboxMetricsRequest{})
	if err != nil || len(r.GetPodMetrics()) != 1 || len(r.GetPodMetrics()[0].GetContainerMetrics()) != 1 {
		t.Fatalf("metrics: got %v (error %v), want one pod with one container", r, err)
	}
	figures := func(metrics []*cri.Metric) map[string]uint64 {
		all := make(map[string]uint64)
		for _, m := range metrics {
			if len(keys[m.GetName()]) != len(m.GetLabelValues()) {
				t.Fatalf("labels of metric %v: want a value for each of %v", m, keys[m.GetName()])
			}
			key := metricKey(m, keys[m.GetName()])
			if _, twice := all[key]; twice {
				t.Errorf("metrics: got %s twice, want it once", key)
			}
			all[key] = m.GetValue().GetValue()
		}
		return all
	}
	p := r.GetPodMetrics()[0]
	return figures(p.GetMetrics()), figures(p.GetContainerMetrics()[0].GetMetrics())
}

// statsInterval is more than the time for which the daemon returns the same counters.
const statsInterval = 1100 * time.Millisecond

// TestMetricsOfKnownLoad runs a container with limits that exceeds its CPU quota and
// writes around the page cache.
func TestMetricsOfKnownLoad(t *testing.T) {
	n := newNode(t, "metrics", 118)
	p := n.RunPod(t, podConfig("load"))
	const written = 64 << 12
	config := containerConfig(p, "load", busybox, "sh", "-c",
		"dd if=/dev/zero of=/file bs=4096 count=64 oflag=direct && touch /written; while :; do :; done")
	config.Linux.Resources = &limits{
		CpuShares: 300, CpuQuota: 20000, CpuPeriod: 80000, MemoryLimitInBytes: 96 << 20, MemorySwapLimitInBytes: 128 << 20,
	}
	id := n.CreateContainer(t, p, config)
	before := uint64(time.Now().Unix())
	n.StartContainer(t, id)
	waitFor(t, "the end of the writes", func() bool {
		r, err := n.RuntimeService.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: id, Cmd: []string{"test", "-e", "/written"}})
		return err == nil && r.GetExitCode() == 0
	})
	time.Sleep(statsInterval)

	var pod, c map[string]uint64
	waitFor(t, "a second of CPU and of waiting for more", func() bool {
		// The daemon may have read the counters of the pod before the counters of the container.
		pod, c = n.metrics(t)
		return c["cpu_usage_seconds_total cpu=total"] > 0 && c["cpu_cfs_throttled_seconds_total"] > 0 && pod["cpu_usage_seconds_total cpu=total"] > 0
	})
	checkSpec(t, c)
	checkLoad(t, c, before)
	n.checkDevices(t, id, c, written)
	for _, name := range []string{"receive_bytes", "receive_packets", "receive_packets_dropped", "receive_errors", "transmit_bytes", "transmit_packets", "transmit_packets_dropped", "transmit_errors"} {
		if _, ok := pod["network_"+name+"_total interface=eth0"]; !ok {
			t.Errorf("metrics of the pod: got %v, want network_%s_total", slices.Sorted(maps.Keys(pod)), name)
		}
	}
	if pod["processes"] != c["processes"] || pod["start_time_seconds"] == 0 || pod["start_time_seconds"] > c["start_time_seconds"] {
		t.Errorf("metrics of the pod: got %v, want %d processes and a start before that of the container", pod, c["processes"])
	}
}

// checkSpec checks the limits of the request.
func checkSpec(t *testing.T, c map[string]uint64) {
	t.Helper()
	want := map[string]uint64{
		"spec_cpu_shares": 300, "spec_cpu_quota": 20000, "spec_cpu_period": 80000,
		"spec_memory_limit_bytes": 96 << 20, "spec_memory_swap_limit_bytes": 128 << 20, "spec_memory_reservation_limit_bytes": 0,
	}
	for name, v := range want {
		if got, ok := c[name]; !ok || got != v {
			t.Errorf("%s: got %d (present: %t), want %d", name, got, ok, v)
		}
	}
}

// checkLoad checks that the values are consistent and within known bounds.
func checkLoad(t *testing.T, c map[string]uint64, before uint64) {
	t.Helper()
	now := uint64(time.Now().Unix())
	for name, bounds := range map[string][2]uint64{
		"processes": {1, 2}, "threads": {1, 2}, "start_time_seconds": {before, now}, "last_seen": {before, now + 1},
		"cpu_cfs_throttled_periods_total": {1, c["cpu_cfs_periods_total"]}, "cpu_user_seconds_total": {0, c["cpu_usage_seconds_total cpu=total"] + 1},
		"memory_usage_bytes": {1, 96 << 20}, "memory_max_usage_bytes": {1, 96 << 20}, "memory_rss": {1, 96 << 20}, "memory_kernel_usage": {1, 96 << 20},
		"memory_cache": {0, 96 << 20}, "memory_mapped_file": {0, 96 << 20}, "memory_failcnt": {0, 0}, "oom_events_total": {0, 0},
		"memory_failures_total failure_type=pgfault scope=hierarchy": {1, 1 << 40}, "ulimits_soft ulimit=max_open_files": {1, 1 << 40},
		"file_descriptors": {3, 100}, "sockets": {0, 0},
	} {
		v, ok := c[name]
		if !ok && unifiedHost() && slices.Contains([]string{"memory_max_usage_bytes", "memory_kernel_usage"}, name) {
			continue // cgroup v2 has this value since Linux 5.19
		}
		if !ok || v < bounds[0] || v > bounds[1] {
			t.Errorf("%s: got %d (present: %t), want %d to %d", name, v, ok, bounds[0], bounds[1])
		}
	}
	var free, inodes, limit bool
	for key, v := range c {
		free = free || strings.HasPrefix(key, "fs_inodes_free device=") && v > 0
		inodes = inodes || strings.HasPrefix(key, "fs_inodes_total device=") && v > 0
		limit = limit || strings.HasPrefix(key, "fs_limit_bytes device=") && v > 1<<20
	}
	if !limit || free != inodes {
		t.Errorf("metrics of the file system: got %v, want fs_limit_bytes, and both metrics of inodes or none", c)
	}
}

// checkDevices checks that the direct writes were counted for a device, if this host
// counts I/O of the container.
func (n *node) checkDevices(t *testing.T, id string, c map[string]uint64, written uint64) {
	t.Helper()
	file := cgroupPath(n.cgroupOf(t, id), "blkio/blkio.throttle.io_service_bytes_recursive", "io.stat")
	if b, err := os.ReadFile(file); err != nil || !strings.Contains(string(b), ":") {
		t.Logf("this host counts no I/O: %q (error %v)", b, err)
		return
	}
	var bytes, writes, usage uint64
	for key, v := range c {
		switch {
		case strings.HasPrefix(key, "fs_writes_bytes_total device=/dev/"):
			bytes += v
		case strings.HasPrefix(key, "fs_writes_total device=/dev/"):
			writes += v
		case strings.HasPrefix(key, "blkio_device_usage_total device=/dev/") && strings.HasSuffix(key, " operation=Write"):
			usage += v
		}
	}
	if bytes < written || writes == 0 || usage != bytes {
		t.Errorf("writes: got %d bytes in %d writes, %d bytes by device, want at least %d bytes; metrics %v", bytes, writes, usage, written, c)
	}
}
