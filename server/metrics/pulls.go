package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/criserver/criserver/image"
	"github.com/criserver/criserver/internal/steps"
)

// pullMetrics are the metrics of the pulls or the loads of images. The bytes and layers are read from the image
// store by stateCollector.
type pullMetrics struct {
	results  *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newPullMetrics(f factory, results, resultsHelp, durations, durationsHelp string) pullMetrics {
	p := pullMetrics{
		results:  f.counters(results, resultsHelp+", by result: success, or the class of the failure.", "result"),
		duration: f.histograms(durations, durationsHelp, pullBuckets, "result"),
	}
	p.results.WithLabelValues(resultSuccess)
	for _, class := range image.PullFailures() {
		p.results.WithLabelValues(string(class))
	}
	for _, result := range []string{resultSuccess, resultFailure} {
		p.duration.WithLabelValues(result)
	}
	return p
}

func (p pullMetrics) ended(info *steps.Info) {
	if info.Err == nil {
		p.results.WithLabelValues(resultSuccess).Inc()
		p.duration.WithLabelValues(resultSuccess).Observe(info.Duration.Seconds())
		return
	}
	p.results.WithLabelValues(string(image.PullFailureOf(info.Err))).Inc()
	p.duration.WithLabelValues(resultFailure).Observe(info.Duration.Seconds())
}
