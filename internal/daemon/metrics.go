package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/server/metrics"
	"github.com/criserver/criserver/server/streaming"
)

// newMetrics returns the metrics and their HTTP server. The metrics are nil if they are off.
func newMetrics(cfg config.Config, version string) (*metrics.Metrics, metrics.Endpoint, error) {
	c := cfg.Metrics
	if c.Address == config.MetricsOff {
		return nil, metrics.Endpoint{}, nil
	}
	e := metrics.Endpoint{Listen: func() (net.Listener, error) { return listenMetrics(c) }}
	if c.TLSCert != "" {
		var err error
		if e.TLS, err = metricsTLS(c); err != nil {
			return nil, e, err
		}
	}
	return metrics.New(version), e, nil
}

// metricsTLS returns the TLS configuration of the server of the metrics.
func metricsTLS(c config.Metrics) (*tls.Config, error) {
	t, err := streaming.TLSConfig(streaming.TLSOptions{CertFile: c.TLSCert, KeyFile: c.TLSKey, ClientCAFile: c.TLSClientCA})
	if err != nil {
		return nil, fmt.Errorf("metrics.tls_cert, metrics.tls_key or metrics.tls_client_ca: %w", err)
	}
	return t, nil
}

// listenMetrics opens the socket of the metrics. A unix socket is for root only. Like listen, listenMetrics replaces
// the socket of an earlier daemon, but not one that another process serves.
func listenMetrics(c config.Metrics) (net.Listener, error) {
	path := c.MetricsSocket()
	if path == "" {
		l, err := net.Listen("tcp", c.Address)
		if err != nil {
			return nil, fmt.Errorf("metrics.address: %w", err)
		}
		return l, nil
	}
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	var l net.Listener
	if err == nil {
		l, err = listenUnix(path, func() error { return os.Chmod(path, 0o600) })
	}
	if err != nil {
		return nil, fmt.Errorf("metrics.address: %w", err)
	}
	return l, nil
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
		p.metrics.Serve(ctx, p.endpoint)
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
