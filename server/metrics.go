package server

import (
	"context"
	"iter"
	"slices"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/sandbox"
)

// identity are the labels that every metric has, in the order of their values.
var identity = []string{"container", "id", "image", "name", "namespace", "pod"}

// metric is one metric in the words of cAdvisor, whose place this takes. The
// API has whole numbers only, so that seconds lose their fractions.
type metric struct {
	name, help string
	kind       cri.MetricType
	labels     []string // after identity
}

func counter(name, help string, labels ...string) metric {
	return metric{name, help, cri.MetricType_COUNTER, labels}
}

func gauge(name, help string, labels ...string) metric {
	return metric{name, help, cri.MetricType_GAUGE, labels}
}

var (
	startTime = gauge("container_start_time_seconds", "Start time of the container since the unix epoch in seconds.")
	layerSize = gauge("container_fs_usage_bytes", "Bytes in the container's writable layer.")
	processes = gauge("container_processes", "Number of processes.")
	rxBytes   = counter("container_network_receive_bytes_total", "Bytes received.", "interface")
	rxErrors  = counter("container_network_receive_errors_total", "Errors while receiving.", "interface")
	txBytes   = counter("container_network_transmit_bytes_total", "Bytes transmitted.", "interface")
	txErrors  = counter("container_network_transmit_errors_total", "Errors while transmitting.", "interface")
)

// usageMetrics are those that a cgroup gives, of a container or of a pod. values
// are those of their own labels.
var usageMetrics = []struct {
	metric
	values []string
	read   func(u *cgroup.Usage) (v uint64, known bool)
}{
	{counter("container_cpu_usage_seconds_total", "CPU time consumed in seconds."), nil, func(u *cgroup.Usage) (uint64, bool) { return u.CPUUsage / uint64(time.Second), true }},
	{gauge("container_memory_usage_bytes", "Memory in use, page cache included."), nil, func(u *cgroup.Usage) (uint64, bool) { return u.Memory.Usage, true }},
	{gauge("container_memory_working_set_bytes", "Memory in use, less inactive file pages."), nil, func(u *cgroup.Usage) (uint64, bool) { return u.Memory.WorkingSet, true }},
	{gauge("container_memory_rss", "Anonymous memory in bytes."), nil, func(u *cgroup.Usage) (uint64, bool) { return u.Memory.RSS, true }},
	{gauge("container_memory_swap", "Swap in use in bytes."), nil, func(u *cgroup.Usage) (uint64, bool) { return u.Memory.Swap, true }},
	{counter("container_memory_failures_total", "Page faults.", "failure_type", "scope"), []string{"pgfault", "hierarchy"}, func(u *cgroup.Usage) (uint64, bool) { return u.Memory.PageFaults, true }},
	{counter("container_memory_failures_total", "Page faults.", "failure_type", "scope"), []string{"pgmajfault", "hierarchy"}, func(u *cgroup.Usage) (uint64, bool) { return u.Memory.MajorFault, true }},
	{gauge("container_spec_memory_limit_bytes", "Limit of memory, 0 for none."), nil, func(u *cgroup.Usage) (uint64, bool) { return u.Memory.Limit, true }},
	{gauge("container_threads", "Number of tasks."), nil, func(u *cgroup.Usage) (uint64, bool) { return u.Pids, true }},
	{counter("container_pressure_cpu_waiting_seconds_total", "Time in which a task waited for CPU."), nil, func(u *cgroup.Usage) (uint64, bool) { return waiting(u.CPUPressure) }},
	{counter("container_pressure_cpu_stalled_seconds_total", "Time in which no task went on for want of CPU."), nil, func(u *cgroup.Usage) (uint64, bool) { return stalled(u.CPUPressure) }},
	{counter("container_pressure_memory_waiting_seconds_total", "Time in which a task waited for memory."), nil, func(u *cgroup.Usage) (uint64, bool) { return waiting(u.MemoryPressure) }},
	{counter("container_pressure_memory_stalled_seconds_total", "Time in which no task went on for want of memory."), nil, func(u *cgroup.Usage) (uint64, bool) { return stalled(u.MemoryPressure) }},
	{counter("container_pressure_io_waiting_seconds_total", "Time in which a task waited for I/O."), nil, func(u *cgroup.Usage) (uint64, bool) { return waiting(u.IOPressure) }},
	{counter("container_pressure_io_stalled_seconds_total", "Time in which no task went on for want of I/O."), nil, func(u *cgroup.Usage) (uint64, bool) { return stalled(u.IOPressure) }},
}

func waiting(p *cgroup.Pressure) (uint64, bool) {
	if p == nil {
		return 0, false
	}
	return uint64(p.Some.Total / time.Second), true
}

func stalled(p *cgroup.Pressure) (uint64, bool) {
	if p == nil {
		return 0, false
	}
	return uint64(p.Full.Total / time.Second), true
}

// ListMetricDescriptors describes every metric there can be; the list never
// changes.
func (s *Server) ListMetricDescriptors(context.Context, *cri.ListMetricDescriptorsRequest) (*cri.ListMetricDescriptorsResponse, error) {
	all := []metric{startTime, layerSize, processes, rxBytes, rxErrors, txBytes, txErrors}
	for _, m := range usageMetrics {
		all = append(all, m.metric)
	}
	resp := &cri.ListMetricDescriptorsResponse{}
	seen := make(map[string]bool)
	for _, m := range all {
		if !seen[m.name] {
			resp.Descriptors = append(resp.Descriptors, &cri.MetricDescriptor{Name: m.name, Help: m.help, LabelKeys: slices.Concat(identity, m.labels)})
		}
		seen[m.name] = true
	}
	return resp, nil
}

// ListPodSandboxMetrics returns the metrics of all ready pods.
func (s *Server) ListPodSandboxMetrics(context.Context, *cri.ListPodSandboxMetricsRequest) (*cri.ListPodSandboxMetricsResponse, error) {
	return &cri.ListPodSandboxMetricsResponse{PodMetrics: slices.Collect(s.podMetrics())}, nil
}

// StreamPodSandboxMetrics is ListPodSandboxMetrics in messages of bounded size.
func (s *Server) StreamPodSandboxMetrics(_ *cri.StreamPodSandboxMetricsRequest, out cri.RuntimeService_StreamPodSandboxMetricsServer) error {
	return batches(s.podMetrics(), func(items []*cri.PodSandboxMetrics) error {
		return out.Send(&cri.StreamPodSandboxMetricsResponse{PodSandboxMetrics: items})
	})
}

func (s *Server) podMetrics() iter.Seq[*cri.PodSandboxMetrics] {
	return func(yield func(*cri.PodSandboxMetrics) bool) {
		for fig := range s.measure(s.readyPods(func(*sandbox.Pod) bool { return true })) {
			m := &cri.PodSandboxMetrics{PodSandboxId: fig.Pod.ID, Metrics: metricsOfPod(fig.Stats)}
			for _, c := range fig.containers {
				m.ContainerMetrics = append(m.ContainerMetrics, &cri.ContainerMetrics{ContainerId: c.Container.ID, Metrics: metricsOfContainer(fig.Pod, c)})
			}
			if !yield(m) {
				return
			}
		}
	}
}

// sampler collects the metrics of one thing at one time.
type sampler struct {
	who []string // values of identity
	at  time.Time
	out []*cri.Metric
}

func (s *sampler) add(m metric, v uint64, labels ...string) {
	s.out = append(s.out, &cri.Metric{
		Name: m.name, Timestamp: s.at.UnixNano(), MetricType: m.kind, LabelValues: slices.Concat(s.who, labels), Value: value(v),
	})
}

func (s *sampler) addUsage(u *cgroup.Usage) {
	for _, m := range usageMetrics {
		if v, known := m.read(u); known {
			s.add(m.metric, v, m.values...)
		}
	}
}

func metricsOfPod(st sandbox.Stats) []*cri.Metric {
	md := st.Pod.Config.GetMetadata()
	s := &sampler{who: []string{"", st.Pod.CgroupParent, "", "", md.GetNamespace(), md.GetName()}, at: st.Time}
	if st.Usage != nil {
		s.addUsage(st.Usage)
		s.add(processes, uint64(st.Processes))
	}
	for _, l := range st.Links {
		if l.Name == "lo" {
			continue // as cAdvisor does
		}
		s.add(rxBytes, l.RxBytes, l.Name)
		s.add(rxErrors, l.RxErrors, l.Name)
		s.add(txBytes, l.TxBytes, l.Name)
		s.add(txErrors, l.TxErrors, l.Name)
	}
	return s.out
}

func metricsOfContainer(p *sandbox.Pod, st container.Stats) []*cri.Metric {
	c, md := st.Container, p.Config.GetMetadata()
	s := &sampler{
		who: []string{c.Config.GetMetadata().GetName(), c.CgroupPath, imageSpec(c).GetImage(), c.ID, md.GetNamespace(), md.GetName()},
		at:  st.Layer.Time,
	}
	s.add(startTime, uint64(max(c.StartedAt.Unix(), 0)))
	s.add(layerSize, st.Layer.Bytes)
	if st.Usage != nil {
		s.at = st.Usage.Time
		s.addUsage(st.Usage)
	}
	return s.out
}
