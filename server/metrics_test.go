package server

import (
	"fmt"
	"iter"
	"maps"
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

type measuredPods struct {
	fakePods
	stats []sandbox.Stats
}

func (p *measuredPods) List() []*sandbox.Pod {
	var all []*sandbox.Pod
	for _, s := range p.stats {
		all = append(all, s.Pod)
	}
	return all
}

func (p *measuredPods) Stats(pods []*sandbox.Pod) []sandbox.Stats {
	return slices.DeleteFunc(slices.Clone(p.stats), func(s sandbox.Stats) bool { return !slices.Contains(pods, s.Pod) })
}

type measuredContainers struct {
	fakeContainers
	stats []container.Stats
}

func (c *measuredContainers) StatsOf(match func(*container.Snapshot) bool) iter.Seq[container.Stats] {
	return slices.Values(slices.DeleteFunc(slices.Clone(c.stats), func(s container.Stats) bool { return !match(s.Container) }))
}

// measured has a ready pod with a container, and a stopped one.
func measured() Config {
	rate := uint64(500)
	usage := &cgroup.Usage{NanoCores: &rate, Stats: cgroup.Stats{
		Time: time.Unix(9, 0), CPUUsage: 7_900_000_000, Pids: 3, IOPressure: &cgroup.Pressure{Some: cgroup.Stall{Total: 4 * time.Second}},
		Memory: cgroup.Memory{Usage: 50, WorkingSet: 40, Limit: 30, Swap: 5, SwapLimit: cgroup.NoLimit, MajorFault: 2},
		Detail: measuredDetail,
	}}
	mount := container.LayerUsage{Mountpoint: "/", Time: time.Unix(9, 0), Bytes: 77}
	config := &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "web", Namespace: "shop"}}
	return Config{
		Pods: &measuredPods{stats: []sandbox.Stats{
			{Pod: &sandbox.Pod{CreatedAt: time.Unix(4, 0), ID: "p", Ready: true, Config: config, CgroupParent: "/k/p"}, Time: time.Unix(9, 0), Usage: usage, Processes: 2, Links: []sandbox.Link{
				{Name: "lo"}, {Name: "eth0", RxBytes: 11, RxPackets: 13, RxErrors: 14, RxDropped: 15, TxBytes: 16, TxPackets: 17, TxErrors: 12, TxDropped: 18},
			}},
			{Pod: &sandbox.Pod{ID: "old", Config: config}},
		}},
		Containers: &measuredContainers{stats: []container.Stats{
			{Usage: usage, Layer: mount, Container: &container.Snapshot{PID: os.Getpid(), Resources: &cri.LinuxContainerResources{CpuShares: 300}, ID: "c", PodID: "p", CgroupPath: "/k/p/c", ImageRef: "i", StartedAt: time.Unix(5, 0), Config: &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "nginx"}}}},
			{Usage: usage, Container: &container.Snapshot{ID: "z", PodID: "old", Config: &cri.ContainerConfig{}}},
		}},
	}
}

// measuredDetail has every figure, each different.
func measuredDetail() cgroup.Detail {
	return cgroup.Detail{
		CPU: cgroup.CPUDetail{
			User: sure(5_900_000_000), System: sure(2_000_000_000), Periods: sure(101), Throttled: sure(102), ThrottledTime: sure(3_400_000_000),
			Period: sure(103), Quota: sure(104), Shares: sure(105),
		},
		Memory: cgroup.MemoryDetail{
			Cache: sure(106), ActiveFile: sure(117), InactiveFile: sure(118), Mapped: sure(107), Kernel: sure(108), Swap: sure(5), Peak: sure(109), Faults: sure(110), MajorFaults: sure(2),
			OwnFaults: sure(111), OwnMajorFaults: sure(112), LimitHits: sure(113), OOMKills: sure(114), MemSwLimit: sure(115), Reserved: sure(116),
		},
		Devices: []cgroup.DeviceIO{
			{Device: "4095:7", ReadBytes: sure(121), WriteBytes: sure(122), DiscardBytes: sure(123), Reads: sure(124), Writes: sure(125)},
			{Device: "4095:8", Reads: sure(126)},
		},
		Processes: sure(6), PIDs: []int{os.Getpid()}, MaxTasks: sure(127),
	}
}

// samples are the values of metrics by name and the values of own labels.
func samples(metrics []*cri.Metric) map[string]uint64 {
	all := make(map[string]uint64)
	for _, m := range metrics {
		all[strings.Join(append([]string{strings.TrimPrefix(m.GetName(), "container_")}, m.GetLabelValues()[len(identity):]...), " ")] = m.GetValue().GetValue()
	}
	return all
}

func TestEveryMetricIsDescribed(t *testing.T) {
	c := serve(t, measured())
	d, err := c.ListMetricDescriptors(t.Context(), &cri.ListMetricDescriptorsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	keys, come := make(map[string][]string), make(map[string]bool)
	for _, m := range d.GetDescriptors() {
		if keys[m.GetName()] != nil || m.GetHelp() == "" {
			t.Errorf("descriptor %v", m)
		}
		keys[m.GetName()] = m.GetLabelKeys()
	}
	r, err := c.ListPodSandboxMetrics(t.Context(), &cri.ListPodSandboxMetricsRequest{})
	if err != nil || len(r.GetPodMetrics()) != 1 || len(r.GetPodMetrics()[0].GetContainerMetrics()) != 1 {
		t.Fatalf("metrics %v, %v", r, err)
	}
	pod := r.GetPodMetrics()[0]
	ofContainer := pod.GetContainerMetrics()[0].GetMetrics()
	series := make(map[string]bool)
	for _, m := range slices.Concat(pod.GetMetrics(), ofContainer) {
		come[m.GetName()] = true
		if keys[m.GetName()] == nil || len(keys[m.GetName()]) != len(m.GetLabelValues()) {
			t.Errorf("metric %v, described with %v", m, keys[m.GetName()])
		}
		one := fmt.Sprintf("%s%q", m.GetName(), m.GetLabelValues())
		if series[one] {
			t.Errorf("twice: %s", one)
		}
		series[one] = true
	}
	for name := range keys {
		if !come[name] && !strings.HasPrefix(name, "container_pressure_") {
			t.Errorf("%s is described but never comes", name)
		}
	}
	i := slices.IndexFunc(ofContainer, func(m *cri.Metric) bool { return m.GetName() == "container_threads" })
	if i < 0 || !slices.Equal(ofContainer[i].GetLabelValues(), []string{"nginx", "/k/p/c", "i", "c", "shop", "web"}) {
		t.Errorf("labels: %v", ofContainer)
	}
	stream, err := c.StreamPodSandboxMetrics(t.Context(), &cri.StreamPodSandboxMetricsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Recv(); err != nil || len(m.GetPodSandboxMetrics()) != 1 {
		t.Errorf("by stream: %v, %v", m, err)
	}
}

// common are the metrics that a pod and a container of measured have alike.
func common() map[string]uint64 {
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
	}
}

func TestMetricsHaveTheirFigures(t *testing.T) {
	r, err := serve(t, measured()).ListPodSandboxMetrics(t.Context(), &cri.ListPodSandboxMetricsRequest{})
	if err != nil || len(r.GetPodMetrics()) != 1 || len(r.GetPodMetrics()[0].GetContainerMetrics()) != 1 {
		t.Fatalf("metrics %v, %v", r, err)
	}
	pod := common()
	maps.Copy(pod, map[string]uint64{
		"start_time_seconds":               4,
		"network_receive_bytes_total eth0": 11, "network_receive_packets_total eth0": 13, "network_receive_errors_total eth0": 14, "network_receive_packets_dropped_total eth0": 15,
		"network_transmit_bytes_total eth0": 16, "network_transmit_packets_total eth0": 17, "network_transmit_errors_total eth0": 12, "network_transmit_packets_dropped_total eth0": 18,
	})
	if got := samples(r.GetPodMetrics()[0].GetMetrics()); !maps.Equal(got, pod) {
		t.Errorf("of the pod:\ngot  %v\nwant %v", got, pod)
	}
	d := readDisk("/")
	n, ok := proc.OpenFiles(os.Getpid())
	if !d.bytes.Known || d.device == "" || !ok {
		t.Fatalf("this host: %v, limit %d, %t", d, n, ok)
	}
	want := common()
	maps.Copy(want, map[string]uint64{
		"start_time_seconds": 5, "oom_events_total": 114, "spec_cpu_shares": 300, "ulimits_soft max_open_files": n,
		"fs_usage_bytes " + d.device: 77, "fs_limit_bytes " + d.device: d.bytes.Value,
	})
	if d.inodes.Known { // else the file system has as many as it needs
		want["fs_inodes_total "+d.device] = d.inodes.Value
	}
	got := samples(r.GetPodMetrics()[0].GetContainerMetrics()[0].GetMetrics())
	if free, ok := got["fs_inodes_free "+d.device]; ok != d.inodes.Known || free > d.inodes.Value {
		t.Errorf("%d inodes of %v are free", free, d.inodes)
	}
	delete(got, "fs_inodes_free "+d.device) // others write too
	open, ok := proc.CountDescriptors([]int{os.Getpid()})
	if !ok || got["file_descriptors"] < 3 || open.Files < 3 || got["sockets"] == 0 || open.Sockets == 0 {
		t.Errorf("%d file descriptors, %d sockets, now %+v", got["file_descriptors"], got["sockets"], open)
	}
	delete(got, "file_descriptors") // other goroutines open and close files
	delete(got, "sockets")
	if !maps.Equal(got, want) {
		t.Errorf("of the container:\ngot  %v\nwant %v", got, want)
	}
}

// A guest tells CPU time, memory and tasks; nothing is made up beside them.
func TestMetricsOfAGuest(t *testing.T) {
	usage := &cgroup.Usage{Stats: cgroup.Stats{Time: time.Unix(9, 0), CPUUsage: 3e9, Pids: 2, Memory: cgroup.Memory{Usage: 4, WorkingSet: 4, RSS: 4}}}
	st := container.Stats{Usage: usage, Container: &container.Snapshot{PID: os.Getpid(), StartedAt: time.Unix(5, 0), Resources: &cri.LinuxContainerResources{CpuShares: 300}}}
	got := samples(metricsOfContainer(&sandbox.Pod{}, st, make(diskReader)))
	want := map[string]uint64{
		"cpu_usage_seconds_total total": 3, "memory_usage_bytes": 4, "memory_working_set_bytes": 4, "memory_rss": 4, "threads": 2,
		"start_time_seconds": 5, "last_seen": 9, "fs_usage_bytes ": 0,
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestFiguresOfAPod(t *testing.T) {
	c := serve(t, measured())
	r, err := c.ListPodSandboxStats(t.Context(), &cri.ListPodSandboxStatsRequest{})
	if err != nil || len(r.GetStats()) != 1 || len(r.GetStats()[0].GetLinux().GetContainers()) != 1 {
		t.Fatalf("stats %v, %v", r, err)
	}
	l := r.GetStats()[0].GetLinux()
	if m := l.GetMemory(); m.GetAvailableBytes() == nil || m.GetAvailableBytes().GetValue() != 0 {
		t.Errorf("memory above its limit: %v", m)
	}
	if n := l.GetNetwork(); n.GetDefaultInterface().GetRxBytes().GetValue() != 11 || n.GetDefaultInterface().GetTxErrors().GetValue() != 12 || len(n.GetInterfaces()) != 1 {
		t.Errorf("network: %v", n)
	}
	if l.GetCpu().GetUsageNanoCores().GetValue() != 500 || l.GetProcess().GetProcessCount().GetValue() != 2 || l.GetIo().GetPsi().GetSome().GetTotal() != 4_000_000_000 {
		t.Errorf("figures: %v", l)
	}
	if s := l.GetContainers()[0].GetSwap(); s.GetSwapAvailableBytes() != nil || s.GetSwapUsageBytes().GetValue() != 5 {
		t.Errorf("swap without a limit: %v", s)
	}
}
