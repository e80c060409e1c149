package metrics

import (
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/criserver/criserver/internal/steps"
)

const (
	// otherValue replaces the value of a label that is not in its set.
	otherValue = "other"
	// maxNames bounds the names of plugins. They come from the configuration of the node and from plugins themselves.
	maxNames = 50
)

// names is a set of at most maxNames values of a label.
type names struct {
	mu    sync.RWMutex // guards known
	known map[string]bool
}

// bound returns name if it is in the set or fits into the set, and otherwise otherValue.
func (n *names) bound(name string) string {
	n.mu.RLock()
	known := n.known[name]
	n.mu.RUnlock()
	if known {
		return name
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.known) >= maxNames && !n.known[name] {
		return otherValue
	}
	if n.known == nil {
		n.known = make(map[string]bool)
	}
	n.known[name] = true
	return name
}

// oneOf returns value if the set contains it, and otherwise otherValue.
func oneOf(value string, set []string) string {
	if slices.Contains(set, value) {
		return value
	}
	return otherValue
}

// cniCommands are the commands of the CNI specification.
var cniCommands = []string{"ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION"}

// pluginMetrics are the metrics of CNI plugins.
type pluginMetrics struct {
	durations *prometheus.HistogramVec
	errors    *prometheus.CounterVec
	names     *names
}

func newPluginMetrics(f factory) pluginMetrics {
	return pluginMetrics{
		durations: f.histograms("cni_plugin_duration_seconds", "Duration of calls of CNI plugins. builtin is true if the daemon did the work without a process.", stepBuckets, "plugin", "command", "builtin"),
		errors:    f.counters("cni_plugin_errors_total", "Calls of CNI plugins that failed, by class of the error.", "plugin", "command", "class"),
		names:     &names{},
	}
}

func (p pluginMetrics) ended(info *steps.Info) {
	plugin, command := p.names.bound(attribute(info, "plugin")), oneOf(attribute(info, "command"), cniCommands)
	builtin := "false"
	if attribute(info, "built-in") != "" {
		builtin = "true"
	}
	p.durations.WithLabelValues(plugin, command, builtin).Observe(info.Duration.Seconds())
	if info.Err != nil {
		p.errors.WithLabelValues(plugin, command, string(info.Class)).Inc()
	}
}

// runtimeOperations are the commands of OCI runtimes. "version" stands for the option --version.
var runtimeOperations = []string{"create", "start", "exec", "kill", "delete", "update", "features", "version", "run", "wait", "events", "ps"}

// operationMetrics are the metrics of the calls of OCI runtimes.
type operationMetrics struct {
	durations *prometheus.HistogramVec
	errors    *prometheus.CounterVec
}

func newRuntimeMetrics(f factory) operationMetrics {
	m := operationMetrics{
		durations: f.histograms("runtime_call_duration_seconds", "Duration of commands of OCI runtimes.", stepBuckets, "operation"),
		errors:    f.counters("runtime_call_errors_total", "Commands of OCI runtimes that failed, by class of the error.", "operation", "class"),
	}
	for _, operation := range runtimeOperations {
		m.durations.WithLabelValues(operation)
		m.errors.WithLabelValues(operation, string(steps.ClassOther))
	}
	return m
}

func (m operationMetrics) ended(command string, info *steps.Info) {
	if command == "--version" {
		command = "version"
	}
	operation := oneOf(command, runtimeOperations)
	m.durations.WithLabelValues(operation).Observe(info.Duration.Seconds())
	if info.Err != nil {
		m.errors.WithLabelValues(operation, string(info.Class)).Inc()
	}
}
