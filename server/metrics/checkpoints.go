package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/criserver/criserver/checkpoint"
)

// checkpointBuckets are the upper bounds of the buckets of durations of checkpoints, in seconds.
var checkpointBuckets = []float64{.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}

// checkpointSizes are the upper bounds of the buckets of sizes of checkpoints, in bytes.
var checkpointSizes = prometheus.ExponentialBuckets(1<<20, 4, 9) // 1 MiB to 64 GiB

// checkpointMetrics are the metrics of checkpoints, by kind.
type checkpointMetrics struct {
	results   *prometheus.CounterVec
	bytes     *prometheus.CounterVec
	sizes     *prometheus.HistogramVec
	durations *prometheus.HistogramVec
	frozen    *prometheus.HistogramVec
}

func newCheckpointMetrics(f factory) checkpointMetrics {
	m := checkpointMetrics{
		results:   f.counters("checkpoints_total", "Checkpoints of containers and pods that have ended. result is success or failure.", "kind", "result"),
		bytes:     f.counters("checkpoint_bytes_total", "Sizes of all checkpoints.", "kind"),
		sizes:     f.histograms("checkpoint_size_bytes", "Size of checkpoints that succeeded.", checkpointSizes, "kind"),
		durations: f.histograms("checkpoint_duration_seconds", "Duration of checkpoints that succeeded.", checkpointBuckets, "kind"),
		frozen: f.histograms("checkpoint_frozen_seconds", "Time for which a checkpoint that succeeded froze its containers.",
			checkpointBuckets, "kind"),
	}
	for _, kind := range []string{checkpoint.KindContainer, checkpoint.KindPod} {
		for _, result := range []string{resultSuccess, resultFailure} {
			m.results.WithLabelValues(kind, result)
		}
		m.bytes.WithLabelValues(kind)
		m.sizes.WithLabelValues(kind)
		m.durations.WithLabelValues(kind)
		m.frozen.WithLabelValues(kind)
	}
	return m
}

// Checkpointed implements checkpoint.Observer.
func (m *Metrics) Checkpointed(r checkpoint.Result) {
	c := &m.checkpoint
	if r.Err != nil {
		c.results.WithLabelValues(r.Kind, resultFailure).Inc()
		return
	}
	c.results.WithLabelValues(r.Kind, resultSuccess).Inc()
	c.bytes.WithLabelValues(r.Kind).Add(float64(r.Bytes))
	c.sizes.WithLabelValues(r.Kind).Observe(float64(r.Bytes))
	c.durations.WithLabelValues(r.Kind).Observe(r.Duration.Seconds())
	c.frozen.WithLabelValues(r.Kind).Observe(r.Frozen.Seconds())
}
