package metrics

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/criserver/criserver/container"
)

// exitReasons are the values of the label reason of container_exits_total.
var exitReasons = []string{container.ReasonCompleted, container.ReasonError, container.ReasonOOMKilled, container.ReasonContainerCannotRun}

// containerMetrics are the metrics of exits of containers and of their monitors.
type containerMetrics struct {
	exits          *prometheus.CounterVec
	oomKills       prometheus.Counter
	lostLogBytes   prometheus.Counter
	monitorCrashes prometheus.Counter
}

func newContainerMetrics(f factory) containerMetrics {
	c := containerMetrics{
		exits:          f.counters("container_exits_total", "Containers that have exited, by reason.", "reason"),
		oomKills:       f.counter("container_oom_kills_total", "Containers that have exited and in which the OOM killer had killed a process."),
		lostLogBytes:   f.counter("container_log_lost_bytes_total", "Bytes of the output of exited containers that could not be written to the log."),
		monitorCrashes: f.counter("monitor_crashes_total", "Monitors that exited before their containers."),
	}
	for _, reason := range exitReasons {
		c.exits.WithLabelValues(reason)
	}
	return c
}

// ContainerExited implements container.Observer.
func (m *Metrics) ContainerExited(e container.ExitFacts) {
	c := &m.containers
	c.exits.WithLabelValues(oneOf(e.Reason, exitReasons)).Inc()
	if e.OOMKilled {
		c.oomKills.Inc()
	}
	c.lostLogBytes.Add(float64(max(e.LogLost, 0)))
}

// MonitorCrashed implements container.Observer.
func (m *Metrics) MonitorCrashed() { m.containers.monitorCrashes.Inc() }

// The values of the label kind of nri_call_errors_total.
const (
	nriTimeout = "timeout"
	nriError   = "error"
)

// nriMetrics are the metrics of plugins of the Node Resource Interface.
type nriMetrics struct {
	durations *prometheus.HistogramVec
	errors    *prometheus.CounterVec
	plugins   prometheus.Gauge
	names     *names // of plugins
	events    *names
}

func newNRIMetrics(f factory) nriMetrics {
	return nriMetrics{
		durations: f.histograms("nri_call_duration_seconds", "Duration of requests to NRI plugins.", stepBuckets, "plugin", "event"),
		errors:    f.counters("nri_call_errors_total", "Requests to NRI plugins that failed. kind is timeout or error.", "plugin", "event", "kind"),
		plugins:   f.gauges("nri_plugins", "Connected NRI plugins.").WithLabelValues(),
		names:     &names{},
		events:    &names{},
	}
}

// PluginAnswered implements nri.Observer.
func (m *Metrics) PluginAnswered(plugin, event string, d time.Duration) {
	m.nri.durations.WithLabelValues(m.nri.names.bound(plugin), m.nri.events.bound(event)).Observe(d.Seconds())
}

// PluginFailed implements nri.Observer.
func (m *Metrics) PluginFailed(plugin, event string, err error) {
	kind := nriError
	if errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded {
		kind = nriTimeout
	}
	m.nri.errors.WithLabelValues(m.nri.names.bound(plugin), m.nri.events.bound(event), kind).Inc()
}

// PluginsConnected implements nri.Observer.
func (m *Metrics) PluginsConnected(n int) { m.nri.plugins.Set(float64(n)) }
