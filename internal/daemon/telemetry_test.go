package daemon

import (
	"testing"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/internal/daemon/telemetry"
)

func TestMetricsOff(t *testing.T) {
	cfg := config.Default()
	cfg.Metrics.Address = config.MetricsOff
	m, _, err := telemetry.NewMetrics(cfg, "1.0.0")
	p := &parts{metrics: m}
	if err != nil || m != nil || len(p.stepObservers()) != 0 || p.serveMetrics(t.Context()) != nil {
		t.Errorf("got %v, %v, want no metrics", m, err)
	}
	p.watchMetrics()
}
