package daemon

import (
	"context"
	"errors"

	"github.com/sirupsen/logrus"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/internal/daemon/telemetry"
	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/server/metrics"
)

// prepareMetrics returns the change of the endpoint of the metrics, or nil if the metrics are off.
func (p *parts) prepareMetrics(before, next config.Metrics) (*telemetry.MetricsChange, error) {
	if p.metrics == nil {
		return nil, nil
	}
	return telemetry.PrepareMetrics(before, next)
}

// updateMetrics applies a change of prepareMetrics.
func (p *parts) updateMetrics(c *telemetry.MetricsChange) error {
	if c != nil {
		c.Apply(p.metricsServer)
	}
	return nil
}

// stepObservers returns the observers of all steps.
func (p *parts) stepObservers() (observers []steps.Observer) {
	if p.metrics != nil {
		observers = append(observers, p.metrics)
	}
	return observers
}

// watchMetrics adds the metrics that are read from the state of the parts.
func (p *parts) watchMetrics() {
	if p.metrics == nil {
		return
	}
	p.metrics.Watch(metrics.Sources{
		Pods: p.pods, Containers: p.containers, Images: p.images, RuntimeStatus: handlerAdapter{p}.Status,
		Root: p.settings.Root, RunDir: p.settings.RunDir,
	})
}

// serveMetrics serves the metrics until ctx ends. A failure does not end the daemon.
func (p *parts) serveMetrics(ctx context.Context) error {
	if p.metrics != nil {
		p.metricsServer.Serve(ctx)
	}
	return nil
}

// runTracer exports spans until ctx ends. The daemon works without traces, so an error is only logged.
func (p *parts) runTracer(ctx context.Context) error {
	if err := p.tracer.Run(ctx); err != nil {
		logrus.WithContext(ctx).WithError(err).Error("traces are not exported")
	}
	return nil
}

// countProbes returns probe, with the results counted if there are metrics.
func (p *parts) countProbes(probe func(context.Context) error) func(context.Context) error {
	if p.metrics == nil {
		return probe
	}
	return func(ctx context.Context) error {
		err := probe(ctx)
		if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) { // not while the daemon stops
			p.metrics.WatchdogProbed(err)
		}
		return err
	}
}
