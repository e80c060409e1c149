package stats

import (
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/sandbox"
)

// podWithContainer returns the stats of a pod with one container. Both have the
// same usage, in which every number of fullDetail is different.
func podWithContainer() PodStats {
	rate := uint64(500)
	usage := &cgroup.Usage{NanoCores: &rate, Stats: cgroup.Stats{
		Time: time.Unix(9, 0), CPUUsage: 7_900_000_000, Pids: 3, IOPressure: &cgroup.Pressure{Some: cgroup.Stall{Total: 4 * time.Second}},
		Memory: cgroup.Memory{Usage: 50, WorkingSet: 40, Limit: 30, Swap: 5, SwapLimit: cgroup.NoLimit, MajorFault: 2},
		Detail: fullDetail,
	}}
	return PodStats{
		Stats: sandbox.Stats{
			Pod: &sandbox.Pod{
				ID: "p", Ready: true, CreatedAt: time.Unix(4, 0), CgroupParent: "/k/p",
				Config: &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "web", Namespace: "shop"}},
			},
			Time: time.Unix(9, 0), Usage: usage, Processes: 2,
			Links: []sandbox.Link{
				{Name: "lo"}, {Name: "eth0", RxBytes: 11, RxPackets: 13, RxErrors: 14, RxDropped: 15, TxBytes: 16, TxPackets: 17, TxErrors: 12, TxDropped: 18},
			},
		},
		Containers: []container.Stats{{
			Usage: usage, Layer: container.LayerUsage{Mountpoint: "/", Time: time.Unix(9, 0), Bytes: 77},
			Container: &container.Snapshot{
				ID: "c", PodID: "p", PID: os.Getpid(), CgroupPath: "/k/p/c", ImageRef: "i", StartedAt: time.Unix(5, 0),
				Resources: &cri.LinuxContainerResources{CpuShares: 300}, Config: &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "nginx"}},
			},
		}},
	}
}

// fullDetail returns a detail in which every value is valid.
func fullDetail() cgroup.Detail {
	return cgroup.Detail{
		CPU: cgroup.CPUDetail{
			User: valid(5_900_000_000), System: valid(2_000_000_000), Periods: valid(101), Throttled: valid(102), ThrottledTime: valid(3_400_000_000),
			Period: valid(103), Quota: valid(104), Shares: valid(105),
		},
		Memory: cgroup.MemoryDetail{
			Cache: valid(106), ActiveFile: valid(117), InactiveFile: valid(118), Mapped: valid(107), Kernel: valid(108), Swap: valid(5), Peak: valid(109), Faults: valid(110), MajorFaults: valid(2),
			OwnFaults: valid(111), OwnMajorFaults: valid(112), LimitHits: valid(113), OOMKills: valid(114), MemSwLimit: valid(115), Reserved: valid(116),
			ActiveAnon: valid(128), InactiveAnon: valid(129), AnonTHP: valid(130), ShmemTHP: valid(131), FileTHP: valid(132),
		},
		HugePages: []cgroup.HugePages{{Size: "2MB", Usage: valid(133), Peak: valid(134)}, {Size: "1GB", Usage: valid(135)}},
		Devices: []cgroup.DeviceIO{
			{Device: "4095:7", ReadBytes: valid(121), WriteBytes: valid(122), DiscardBytes: valid(123), Reads: valid(124), Writes: valid(125)},
			{Device: "4095:8", Reads: valid(126)},
		},
		Processes: valid(6), PIDs: []int{os.Getpid()}, MaxTasks: valid(127),
	}
}

// valuesOf returns the values of metrics by name, without the prefix "container_", and by the
// values of the labels after identityLabels.
func valuesOf(metrics []*cri.Metric) map[string]uint64 {
	all := make(map[string]uint64)
	for _, m := range metrics {
		all[strings.Join(append([]string{strings.TrimPrefix(m.GetName(), "container_")}, m.GetLabelValues()[len(identityLabels):]...), " ")] = m.GetValue().GetValue()
	}
	return all
}

func TestEveryMetricIsDescribed(t *testing.T) {
	labels := make(map[string][]string)
	for _, m := range Descriptors() {
		if labels[m.GetName()] != nil || m.GetHelp() == "" {
			t.Errorf("descriptor %v is repeated or has no help text", m)
		}
		labels[m.GetName()] = m.GetLabelKeys()
	}
	pod := NewMetricsBuilder().Pod(podWithContainer())
	ofContainer := pod.GetContainerMetrics()[0].GetMetrics()
	series, names := make(map[string]bool), make(map[string]bool)
	for _, m := range slices.Concat(pod.GetMetrics(), ofContainer) {
		names[m.GetName()] = true
		if labels[m.GetName()] == nil || len(labels[m.GetName()]) != len(m.GetLabelValues()) {
			t.Errorf("metric %v does not fit the described labels %v", m, labels[m.GetName()])
		}
		key := fmt.Sprintf("%s%q", m.GetName(), m.GetLabelValues())
		if series[key] {
			t.Errorf("the series %s is repeated", key)
		}
		series[key] = true
	}
	for name := range labels {
		if !names[name] && !strings.HasPrefix(name, "container_pressure_") {
			t.Errorf("the metric %s is described and missing", name)
		}
	}
	i := slices.IndexFunc(ofContainer, func(m *cri.Metric) bool { return m.GetName() == "container_threads" })
	if i < 0 || !slices.Equal(ofContainer[i].GetLabelValues(), []string{"nginx", "/k/p/c", "i", "c", "shop", "web"}) {
		t.Errorf("wrong labels of container_threads: %v", ofContainer)
	}
}

// commonMetrics returns the metrics that the pod and the container of podWithContainer share.
func commonMetrics() map[string]uint64 {
	return map[string]uint64{
		"cpu_usage_seconds_total total": 7, "cpu_user_seconds_total": 5, "cpu_system_seconds_total": 2,
		"cpu_cfs_periods_total": 101, "cpu_cfs_throttled_periods_total": 102, "cpu_cfs_throttled_seconds_total": 3,
		"memory_usage_bytes": 50, "memory_working_set_bytes": 40, "memory_rss": 0, "memory_cache": 106, "memory_total_active_file_bytes": 117, "memory_total_inactive_file_bytes": 118, "memory_mapped_file": 107,
		"memory_kernel_usage": 108, "memory_swap": 5, "memory_max_usage_bytes": 109, "memory_failcnt": 113,
		"memory_failures_total pgfault hierarchy": 110, "memory_failures_total pgmajfault hierarchy": 2,
		"memory_failures_total pgfault container": 111, "memory_failures_total pgmajfault container": 112,
		"processes": 6, "threads": 3, "threads_max": 127,
		"spec_cpu_period": 103, "spec_cpu_quota": 104, "spec_cpu_shares": 105, "spec_memory_limit_bytes": 30,
		"spec_memory_swap_limit_bytes": 115, "spec_memory_reservation_limit_bytes": 116,
		"pressure_io_waiting_seconds_total": 4, "pressure_io_stalled_seconds_total": 0,
		"fs_reads_bytes_total 4095:7": 121, "fs_writes_bytes_total 4095:7": 122, "fs_reads_total 4095:7": 124, "fs_writes_total 4095:7": 125,
		"blkio_device_usage_total 4095:7 4095 7 Read": 121, "blkio_device_usage_total 4095:7 4095 7 Write": 122,
		"blkio_device_usage_total 4095:7 4095 7 Discard": 123, "fs_reads_total 4095:8": 126, "last_seen": 9,
		"memory_active_anon_bytes": 128, "memory_inactive_anon_bytes": 129,
		"memory_anon_thp_bytes": 130, "memory_shmem_thp_bytes": 131, "memory_file_thp_bytes": 132,
		"hugetlb_usage_bytes 2MB": 133, "hugetlb_max_usage_bytes 2MB": 134, "hugetlb_usage_bytes 1GB": 135,
	}
}

func TestMetricValues(t *testing.T) {
	socket, err := net.ListenPacket("udp", "127.0.0.1:0") // one socket at least is counted
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	metrics := NewMetricsBuilder().Pod(podWithContainer())
	pod := commonMetrics()
	maps.Copy(pod, map[string]uint64{
		"start_time_seconds":               4,
		"network_receive_bytes_total eth0": 11, "network_receive_packets_total eth0": 13, "network_receive_errors_total eth0": 14, "network_receive_packets_dropped_total eth0": 15,
		"network_transmit_bytes_total eth0": 16, "network_transmit_packets_total eth0": 17, "network_transmit_errors_total eth0": 12, "network_transmit_packets_dropped_total eth0": 18,
	})
	if got := valuesOf(metrics.GetMetrics()); !maps.Equal(got, pod) {
		t.Errorf("pod metrics:\ngot  %v\nwant %v", got, pod)
	}
	fs := readFilesystem("/")
	limit, ok := proc.OpenFilesLimit(os.Getpid())
	if !fs.bytes.Valid || fs.device == "" || !ok {
		t.Fatalf("file system %+v, limit of open files %d, %t", fs, limit, ok)
	}
	want := commonMetrics()
	maps.Copy(want, map[string]uint64{
		"start_time_seconds": 5, "oom_events_total": 114, "spec_cpu_shares": 300, "ulimits_soft max_open_files": limit,
		"fs_usage_bytes " + fs.device: 77, "fs_limit_bytes " + fs.device: fs.bytes.Value,
	})
	if fs.inodes.Valid { // some file systems create inodes on demand
		want["fs_inodes_total "+fs.device] = fs.inodes.Value
	}
	got := valuesOf(metrics.GetContainerMetrics()[0].GetMetrics())
	if free, ok := got["fs_inodes_free "+fs.device]; ok != fs.inodes.Valid || free > fs.inodes.Value {
		t.Errorf("%d inodes of %v are free", free, fs.inodes)
	}
	delete(got, "fs_inodes_free "+fs.device) // other processes create and delete files
	open, ok := proc.CountDescriptors([]int{os.Getpid()})
	if !ok || got["file_descriptors"] < 3 || open.Files < 3 || got["sockets"] == 0 || open.Sockets == 0 {
		t.Errorf("metrics have %d file descriptors and %d sockets, the process has %+v", got["file_descriptors"], got["sockets"], open)
	}
	delete(got, "file_descriptors") // other goroutines open and close files
	delete(got, "sockets")
	if !maps.Equal(got, want) {
		t.Errorf("container metrics:\ngot  %v\nwant %v", got, want)
	}
}

// TestMetricsOfAGuestKernel checks that a container has no metrics that the guest
// kernel does not report.
func TestMetricsOfAGuestKernel(t *testing.T) {
	usage := &cgroup.Usage{Stats: cgroup.Stats{Time: time.Unix(9, 0), CPUUsage: 3e9, Pids: 2, Memory: cgroup.Memory{Usage: 4, WorkingSet: 4, RSS: 4}}}
	s := container.Stats{Usage: usage, Container: &container.Snapshot{PID: os.Getpid(), StartedAt: time.Unix(5, 0), Resources: &cri.LinuxContainerResources{CpuShares: 300}}}
	got := valuesOf(NewMetricsBuilder().containerMetrics(&sandbox.Pod{}, s))
	want := map[string]uint64{
		"cpu_usage_seconds_total total": 3, "memory_usage_bytes": 4, "memory_working_set_bytes": 4, "memory_rss": 4, "threads": 2,
		"start_time_seconds": 5, "last_seen": 9, "fs_usage_bytes ": 0,
	}
	if !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestPodStats(t *testing.T) {
	l := Pod(podWithContainer()).GetLinux()
	if m := l.GetMemory(); m.GetAvailableBytes() == nil || m.GetAvailableBytes().GetValue() != 0 {
		t.Errorf("available memory of a pod above its limit: %v", m)
	}
	if n := l.GetNetwork(); n.GetDefaultInterface().GetRxBytes().GetValue() != 11 || n.GetDefaultInterface().GetTxErrors().GetValue() != 12 || len(n.GetInterfaces()) != 1 {
		t.Errorf("network: %v", n)
	}
	if l.GetCpu().GetUsageNanoCores().GetValue() != 500 || l.GetProcess().GetProcessCount().GetValue() != 2 || l.GetIo().GetPsi().GetSome().GetTotal() != 4_000_000_000 {
		t.Errorf("CPU, processes or I/O: %v", l)
	}
	if s := l.GetContainers()[0].GetSwap(); s.GetSwapAvailableBytes() != nil || s.GetSwapUsageBytes().GetValue() != 5 {
		t.Errorf("swap without a limit: %v", s)
	}
}
