package server

import (
	"context"
	"iter"
	"slices"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/proc"
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
	lastSeen  = gauge("container_last_seen", "When these figures were read, in seconds since the unix epoch.")
	openFiles = gauge("container_ulimits_soft", "Soft limits of the first process.", "ulimit")

	descriptors = gauge("container_file_descriptors", "Open file descriptors of all processes.")
	sockets     = gauge("container_sockets", "Open sockets of all processes.")
)

// allMetrics are all metrics there can be; some come with several values of
// their labels.
func allMetrics() []metric {
	all := []metric{
		startTime, lastSeen, openFiles, descriptors, sockets, layerBytes, fsLimit, fsInodesFree, fsInodes,
		fsReadBytes, fsReads, fsWriteBytes, fsWrites, deviceUsage,
	}
	for _, m := range usageMetrics {
		all = append(all, m.metric)
	}
	for _, m := range linkMetrics {
		all = append(all, m.metric)
	}
	return all
}

// ListMetricDescriptors describes every metric there can be; the list never
// changes.
func (s *Server) ListMetricDescriptors(context.Context, *cri.ListMetricDescriptorsRequest) (*cri.ListMetricDescriptorsResponse, error) {
	resp := &cri.ListMetricDescriptorsResponse{}
	seen := make(map[string]bool)
	for _, m := range allMetrics() {
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
		disks := make(diskReader)
		for fig := range s.measure(s.readyPods(func(*sandbox.Pod) bool { return true })) {
			m := &cri.PodSandboxMetrics{PodSandboxId: fig.Pod.ID, Metrics: metricsOfPod(fig.Stats)}
			for _, c := range fig.containers {
				m.ContainerMetrics = append(m.ContainerMetrics, &cri.ContainerMetrics{ContainerId: c.Container.ID, Metrics: metricsOfContainer(fig.Pod, c, disks)})
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

// know adds a metric whose value is known.
func (s *sampler) know(m metric, f cgroup.Figure, labels ...string) {
	if f.Known {
		s.add(m, f.Value, labels...)
	}
}

func metricsOfPod(st sandbox.Stats) []*cri.Metric {
	md := st.Pod.Config.GetMetadata()
	s := &sampler{who: []string{"", st.Pod.CgroupParent, "", "", md.GetNamespace(), md.GetName()}, at: st.Time}
	s.add(startTime, seconds(st.Pod.CreatedAt))
	s.add(lastSeen, seconds(s.at))
	if st.Usage != nil {
		s.addUsage(&reading{Usage: st.Usage, more: detail(st.Usage)})
	}
	for i := range st.Links {
		if l := &st.Links[i]; l.Name != "lo" { // as cAdvisor does
			s.addLink(l)
		}
	}
	return s.out
}

func metricsOfContainer(p *sandbox.Pod, st container.Stats, disks diskReader) []*cri.Metric {
	c, md := st.Container, p.Config.GetMetadata()
	s := &sampler{
		who: []string{c.Config.GetMetadata().GetName(), c.CgroupPath, imageSpec(c).GetImage(), c.ID, md.GetNamespace(), md.GetName()},
		at:  st.Layer.Time,
	}
	s.add(startTime, seconds(c.StartedAt))
	s.addLayer(st.Layer, disks)
	if st.Usage != nil {
		s.at = st.Usage.Time
		more := detail(st.Usage)
		s.addUsage(&reading{Usage: st.Usage, more: more, container: true, shares: uint64(max(c.Resources.GetCpuShares(), 0))})
		s.addOpenFiles(c, st.Usage)
		s.addDescriptors(more)
	}
	s.add(lastSeen, seconds(s.at))
	return s.out
}

// detail is empty for a guest, of which the host knows no more.
func detail(u *cgroup.Usage) cgroup.Detail {
	if u.Detail == nil {
		return cgroup.Detail{}
	}
	return u.Detail()
}

// addOpenFiles adds the one limit that cAdvisor has. The first process of a
// container in a guest is none of the host's.
func (s *sampler) addOpenFiles(c *container.Snapshot, u *cgroup.Usage) {
	if u.Detail == nil {
		return
	}
	if n, ok := proc.OpenFiles(c.PID); ok {
		s.add(openFiles, n, "max_open_files")
	}
}

// addDescriptors adds what the processes have open. Only containers have these
// metrics: a pod's would be the sum, at the price of a second look at each file.
func (s *sampler) addDescriptors(more cgroup.Detail) {
	if !more.Processes.Known {
		return
	}
	if d, ok := proc.CountDescriptors(more.PIDs); ok {
		s.add(descriptors, d.Files)
		s.add(sockets, d.Sockets)
	}
}

// seconds since the unix epoch.
func seconds(t time.Time) uint64 { return uint64(max(t.Unix(), 0)) }
