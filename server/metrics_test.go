package server

import (
	"iter"
	"slices"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/internal/cgroup"
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
	}}
	config := &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: "web", Namespace: "shop"}}
	return Config{
		Pods: &measuredPods{stats: []sandbox.Stats{
			{Pod: &sandbox.Pod{ID: "p", Ready: true, Config: config, CgroupParent: "/k/p"}, Time: time.Unix(9, 0), Usage: usage, Processes: 2, Links: []sandbox.Link{{Name: "lo"}, {Name: "eth0", RxBytes: 11, TxErrors: 12}}},
			{Pod: &sandbox.Pod{ID: "old", Config: config}},
		}},
		Containers: &measuredContainers{stats: []container.Stats{
			{Usage: usage, Container: &container.Snapshot{ID: "c", PodID: "p", CgroupPath: "/k/p/c", ImageRef: "i", StartedAt: time.Unix(5, 0), Config: &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "nginx"}}}},
			{Usage: usage, Container: &container.Snapshot{ID: "z", PodID: "old", Config: &cri.ContainerConfig{}}},
		}},
	}
}

func TestEveryMetricIsDescribed(t *testing.T) {
	c := serve(t, measured())
	d, err := c.ListMetricDescriptors(t.Context(), &cri.ListMetricDescriptorsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	keys := make(map[string][]string)
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
	for _, m := range slices.Concat(pod.GetMetrics(), ofContainer) {
		if keys[m.GetName()] == nil || len(keys[m.GetName()]) != len(m.GetLabelValues()) {
			t.Errorf("metric %v, described with %v", m, keys[m.GetName()])
		}
	}
	for name, want := range map[string]uint64{
		"container_cpu_usage_seconds_total": 7, "container_memory_working_set_bytes": 40, "container_start_time_seconds": 5,
		"container_pressure_io_waiting_seconds_total": 4, "container_threads": 3,
	} {
		i := slices.IndexFunc(ofContainer, func(m *cri.Metric) bool { return m.GetName() == name })
		if i < 0 || ofContainer[i].GetValue().GetValue() != want || !slices.Equal(ofContainer[i].GetLabelValues(), []string{"nginx", "/k/p/c", "i", "c", "shop", "web"}) {
			t.Errorf("%s: %v", name, ofContainer)
		}
	}
	if slices.ContainsFunc(ofContainer, func(m *cri.Metric) bool { return m.GetName() == "container_pressure_cpu_waiting_seconds_total" }) {
		t.Error("a pressure that nobody measured")
	}
	stream, err := c.StreamPodSandboxMetrics(t.Context(), &cri.StreamPodSandboxMetricsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Recv(); err != nil || len(m.GetPodSandboxMetrics()) != 1 {
		t.Errorf("by stream: %v, %v", m, err)
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
