// Package metrics counts the events of the daemon, and serves the counts in the format of Prometheus. It is the only
// package that imports the Prometheus library: other packages declare small interfaces for their events, which Metrics
// implements.
//
// The values of all labels come from bounded sets. Ids, names of pods and containers, and names of images are never
// labels. docs/metrics.md lists all metrics.
package metrics

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// namespace is the prefix of the names of all metrics except the metrics of the Go runtime and of the process.
const namespace = "criserver"

// Metrics contains the metrics of one daemon. Its methods may be called by several goroutines.
type Metrics struct {
	registry *prometheus.Registry

	calls      map[string]*callMetrics // by name of the RPC; not changed after New
	callCodes  *prometheus.CounterVec
	steps      stepMetrics
	plugins    pluginMetrics
	runtime    operationMetrics
	pulls      pullMetrics
	loads      pullMetrics
	containers containerMetrics
	nri        nriMetrics
	checkpoint checkpointMetrics
	probes     *prometheus.CounterVec
}

// New returns the metrics of a daemon of this version. Watch adds those that are read from the state of the daemon.
func New(version string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	f := factory{m.registry}
	f.gauges("build_info", "Version of the daemon and of Go. The value is always 1.", "version", "go_version").
		WithLabelValues(version, runtime.Version()).Set(1)
	m.newCallMetrics(f)
	m.steps = newStepMetrics(f)
	m.plugins = newPluginMetrics(f)
	m.runtime = newRuntimeMetrics(f)
	m.pulls = newPullMetrics(f, "image_pulls_total", "Pulls of images that have ended", "image_pull_duration_seconds", "Duration of pulls of images.")
	m.loads = newPullMetrics(f, "image_loads_total", "Loads of archives of images that have ended", "image_load_duration_seconds",
		"Duration of loads of archives of images, including the time until the client has sent the archive.")
	m.containers = newContainerMetrics(f)
	m.nri = newNRIMetrics(f)
	m.checkpoint = newCheckpointMetrics(f)
	m.probes = f.counters("watchdog_probes_total", "Requests with which the daemon tests its own gRPC server for the watchdog of systemd.", "result")
	for _, result := range []string{resultSuccess, resultFailure} {
		m.probes.WithLabelValues(result)
	}
	return m
}

// The values of the label result.
const (
	resultSuccess = "success"
	resultFailure = "failure"
)

// WatchdogProbed counts a request with which the daemon tests its own gRPC server.
func (m *Metrics) WatchdogProbed(err error) {
	result := resultSuccess
	if err != nil {
		result = resultFailure
	}
	m.probes.WithLabelValues(result).Inc()
}

// factory creates metrics in a registry. The names get the prefix of namespace.
type factory struct{ registry *prometheus.Registry }

func (f factory) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
	f.registry.MustRegister(c)
	return c
}

func (f factory) counters(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	f.registry.MustRegister(c)
	return c
}

func (f factory) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
	f.registry.MustRegister(g)
	return g
}

func (f factory) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}, labels)
	f.registry.MustRegister(h)
	return h
}

// Upper bounds of the buckets of histograms, in seconds.
var (
	// callBuckets reach from lists, which are read from memory, to calls that wait for their deadline.
	callBuckets = []float64{.001, .005, .025, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300}
	// stepBuckets are finer for the steps of a pod start, which take milliseconds.
	stepBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60}
	pullBuckets = []float64{.1, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800}
)
