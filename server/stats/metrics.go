package stats

import (
	"slices"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/sandbox"
)

// identityLabels are the labels that every metric has before its other labels.
// The values of a metric's labels have the same order.
var identityLabels = []string{"container", "id", "image", "name", "namespace", "pod"}

// metric describes one metric under the name that cAdvisor gave it. Values are
// whole numbers, because the CRI has no others: seconds lose their fractions.
type metric struct {
	name, help string
	kind       cri.MetricType
	labels     []string // after identityLabels
}

func counter(name, help string, labels ...string) metric {
	return metric{name, help, cri.MetricType_COUNTER, labels}
}

func gauge(name, help string, labels ...string) metric {
	return metric{name, help, cri.MetricType_GAUGE, labels}
}

var (
	startTime = gauge("container_start_time_seconds", "Start time of the container since the unix epoch in seconds.")
	lastSeen  = gauge("container_last_seen", "Time of the reading in seconds since the unix epoch.")
)

// cgroupMetric is a metric whose value is read from a cgroup.
type cgroupMetric struct {
	metric
	values []string // of metric.labels
	read   func(r *reading) cgroup.Optional
}

// reading is the state of a cgroup of a container or of a pod at one time.
type reading struct {
	*cgroup.Usage
	// detail is empty for a container under a guest kernel, whose runtime reports
	// only CPU time, memory and tasks.
	detail cgroup.Detail
	// isContainer is false for the cgroup of a pod.
	isContainer bool
	// cpuShares is the number of CPU shares in the container's config; 0 is unknown.
	cpuShares uint64
}

func newReading(u *cgroup.Usage) *reading {
	r := &reading{Usage: u}
	if u.Detail != nil {
		r.detail = u.Detail()
	}
	return r
}

var cgroupMetrics = slices.Concat(cpuMetrics, memoryMetrics, taskMetrics, pressureMetrics)

// allMetrics returns all metrics. Metrics that occur with several values of their
// labels are repeated.
func allMetrics() []metric {
	all := slices.Concat([]metric{startTime, lastSeen}, processMetrics, filesystemMetrics, deviceMetrics, hugePagesMetrics)
	for _, m := range cgroupMetrics {
		all = append(all, m.metric)
	}
	for _, m := range networkMetrics {
		all = append(all, m.metric)
	}
	return all
}

// Descriptors returns the name, help text and labels of every metric that a
// MetricsBuilder returns.
func Descriptors() []*cri.MetricDescriptor {
	var descriptors []*cri.MetricDescriptor
	seen := make(map[string]bool)
	for _, m := range allMetrics() {
		if !seen[m.name] {
			descriptors = append(descriptors, &cri.MetricDescriptor{Name: m.name, Help: m.help, LabelKeys: slices.Concat(identityLabels, m.labels)})
		}
		seen[m.name] = true
	}
	return descriptors
}

// MetricsBuilder builds the metrics of pods for one answer. It reads the size of
// each file system once, however many writable layers the file system has.
type MetricsBuilder struct {
	filesystems filesystemCache
}

// NewMetricsBuilder returns a MetricsBuilder for one answer.
func NewMetricsBuilder() *MetricsBuilder { return &MetricsBuilder{make(filesystemCache)} }

// Pod returns the metrics of a pod sandbox and of its containers.
func (b *MetricsBuilder) Pod(s PodStats) *cri.PodSandboxMetrics {
	m := &cri.PodSandboxMetrics{PodSandboxId: s.Pod.ID, Metrics: podMetrics(s.Stats)}
	for _, c := range s.Containers {
		m.ContainerMetrics = append(m.ContainerMetrics, &cri.ContainerMetrics{ContainerId: c.Container.ID, Metrics: b.containerMetrics(s.Pod, c)})
	}
	return m
}

func podMetrics(s sandbox.Stats) []*cri.Metric {
	md := s.Pod.Config.GetMetadata()
	c := &collector{identity: []string{"", s.Pod.CgroupParent, "", "", md.GetNamespace(), md.GetName()}, time: s.Time}
	c.add(startTime, unixSeconds(s.Pod.CreatedAt))
	c.add(lastSeen, unixSeconds(c.time))
	if s.Usage != nil {
		c.addCgroup(newReading(s.Usage))
	}
	for i := range s.Links {
		if l := &s.Links[i]; l.Name != "lo" { // cAdvisor omits the loopback interface, too
			c.addInterface(l)
		}
	}
	return c.metrics
}

func (b *MetricsBuilder) containerMetrics(p *sandbox.Pod, s container.Stats) []*cri.Metric {
	ctr, md := s.Container, p.Config.GetMetadata()
	c := &collector{
		identity: []string{ctr.Config.GetMetadata().GetName(), ctr.CgroupPath, ctr.ImageRef, ctr.ID, md.GetNamespace(), md.GetName()},
		time:     s.Layer.Time,
	}
	c.add(startTime, unixSeconds(ctr.StartedAt))
	c.addLayer(s.Layer, b.filesystems)
	if s.Usage != nil {
		c.time = s.Usage.Time
		r := newReading(s.Usage)
		r.isContainer, r.cpuShares = true, uint64(max(ctr.Resources.GetCpuShares(), 0))
		c.addCgroup(r)
		c.addProcesses(r, ctr.PID)
	}
	c.add(lastSeen, unixSeconds(c.time))
	return c.metrics
}

// collector collects the metrics of one pod or container at one time.
type collector struct {
	identity []string // values of identityLabels
	time     time.Time
	metrics  []*cri.Metric
}

func (c *collector) add(m metric, v uint64, labels ...string) {
	c.metrics = append(c.metrics, &cri.Metric{
		Name: m.name, Timestamp: c.time.UnixNano(), MetricType: m.kind, LabelValues: slices.Concat(c.identity, labels), Value: uint64Value(v),
	})
}

// addValid adds a metric if its value is valid.
func (c *collector) addValid(m metric, v cgroup.Optional, labels ...string) {
	if v.Valid {
		c.add(m, v.Value, labels...)
	}
}

// addCgroup adds the metrics of a cgroup and of the block devices that it used.
func (c *collector) addCgroup(r *reading) {
	for _, m := range cgroupMetrics {
		c.addValid(m.metric, m.read(r), m.values...)
	}
	for _, d := range r.detail.Devices {
		c.addDevice(d)
	}
	for _, h := range r.detail.HugePages {
		c.addHugePages(h)
	}
}

// valid returns v as a valid value.
func valid(v uint64) cgroup.Optional { return cgroup.Optional{Value: v, Valid: true} }

// toSeconds converts nanoseconds to whole seconds.
func toSeconds(v cgroup.Optional) cgroup.Optional {
	return cgroup.Optional{Value: v.Value / uint64(time.Second), Valid: v.Valid}
}

// unixSeconds returns the seconds from the unix epoch to t.
func unixSeconds(t time.Time) uint64 { return uint64(max(t.Unix(), 0)) }
