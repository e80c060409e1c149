package metrics

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/criserver/criserver/internal/steps"
)

// stuckAfter is the time after which a running step counts as stuck. Most steps take less than a second.
const stuckAfter = time.Minute

// stepMetrics are the metrics of the steps of operations on pods, containers and images.
type stepMetrics struct {
	durations map[steps.Name]prometheus.Observer // not changed after newStepMetrics
	errors    *prometheus.CounterVec
	running   *runningSteps
}

func newStepMetrics(f factory) stepMetrics {
	durations := f.histograms("step_duration_seconds", "Duration of the steps of operations. A step contains the steps that the operation below it performs.", stepBuckets, "step")
	s := stepMetrics{
		durations: make(map[steps.Name]prometheus.Observer),
		errors:    f.counters("step_errors_total", "Steps that ended with an error, by class of the error.", "step", "class"),
		running:   newRunningSteps(),
	}
	for _, name := range steps.Names() {
		if name != steps.RPC { // see rpc_duration_seconds
			s.durations[name] = durations.WithLabelValues(name.String())
			s.errors.WithLabelValues(name.String(), string(steps.ClassOther))
		}
	}
	f.registry.MustRegister(s.running)
	return s
}

// StepStarted implements steps.StartObserver.
func (m *Metrics) StepStarted(ctx context.Context, info *steps.Info) context.Context {
	// The commands "wait" of runtimes with guests last as long as the container.
	if info.Name != steps.RPC && (info.Name != steps.RuntimeCall || attribute(info, "command") != "wait") {
		m.steps.running.add(info)
	}
	return ctx
}

// StepEnded implements steps.Observer.
func (m *Metrics) StepEnded(_ context.Context, info *steps.Info) {
	duration := m.steps.durations[info.Name]
	if duration == nil {
		return
	}
	m.steps.running.remove(info)
	duration.Observe(info.Duration.Seconds())
	if info.Err != nil {
		m.steps.errors.WithLabelValues(info.Name.String(), string(info.Class)).Inc()
	}
	switch info.Name {
	case steps.CNIPlugin:
		m.plugins.ended(info)
	case steps.RuntimeCall:
		m.runtime.ended(attribute(info, "command"), info)
	case steps.RuntimeCreate: // the monitor executes the command
		m.runtime.ended("create", info)
	case steps.ImagePull:
		m.pulls.ended(info)
	case steps.ImageLoad:
		m.loads.ended(info)
	}
}

// attribute returns the value of an attribute of a step, or "".
func attribute(info *steps.Info, key string) string {
	for _, a := range info.Attrs() {
		if a.Key == key {
			return a.Value
		}
	}
	return ""
}

// runningSteps is the set of steps that have begun and not ended. It collects their number and age by name.
type runningSteps struct {
	number, stuck, oldest *prometheus.Desc

	mu  sync.Mutex // guards all; held only to change or copy the set
	all map[*steps.Info]struct{}
}

func newRunningSteps() *runningSteps {
	return &runningSteps{
		number: desc("steps_running", "Steps that are in progress.", "step"),
		stuck:  desc("steps_stuck", "Steps that are in progress for more than 60 seconds.", "step"),
		oldest: desc("step_oldest_seconds", "Age of the oldest step that is in progress, 0 if there is none.", "step"),
		all:    make(map[*steps.Info]struct{}),
	}
}

func (r *runningSteps) add(info *steps.Info) {
	r.mu.Lock()
	r.all[info] = struct{}{}
	r.mu.Unlock()
}

func (r *runningSteps) remove(info *steps.Info) {
	r.mu.Lock()
	delete(r.all, info)
	r.mu.Unlock()
}

// age is the number of running steps of one name, and the age of the oldest.
type age struct {
	running, stuck int
	oldest         time.Duration
}

// ages returns the running steps by name.
func (r *runningSteps) ages(now time.Time) map[steps.Name]age {
	r.mu.Lock()
	defer r.mu.Unlock()
	ages := make(map[steps.Name]age)
	for info := range r.all {
		a, d := ages[info.Name], now.Sub(info.Start)
		a.running++
		if d > stuckAfter {
			a.stuck++
		}
		a.oldest = max(a.oldest, d)
		ages[info.Name] = a
	}
	return ages
}

// Describe implements prometheus.Collector.
func (r *runningSteps) Describe(ch chan<- *prometheus.Desc) {
	ch <- r.number
	ch <- r.stuck
	ch <- r.oldest
}

// Collect implements prometheus.Collector.
func (r *runningSteps) Collect(ch chan<- prometheus.Metric) {
	ages := r.ages(time.Now())
	for _, name := range steps.Names() {
		if name == steps.RPC {
			continue
		}
		a := ages[name]
		ch <- gauge(r.number, float64(a.running), name.String())
		ch <- gauge(r.stuck, float64(a.stuck), name.String())
		ch <- gauge(r.oldest, a.oldest.Seconds(), name.String())
	}
}

// desc returns the description of a metric that a collector reads from the state of the daemon.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
}

func gauge(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func counter(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}
