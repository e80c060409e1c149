package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/server/metrics"
	"github.com/criserver/criserver/server/streaming"
)

// newMetrics returns the metrics and their HTTP server, or nil if they are off.
func newMetrics(cfg config.Config, version string) (*metrics.Metrics, *metrics.Server, error) {
	if cfg.Metrics.Address == config.MetricsOff {
		return nil, nil, nil
	}
	e, err := metricsEndpoint(cfg.Metrics)
	if err != nil {
		return nil, nil, err
	}
	m := metrics.New(version)
	return m, m.NewServer(e), nil
}

// metricsEndpoint returns the endpoint of the metrics. It reads the files for TLS.
func metricsEndpoint(c config.Metrics) (e metrics.Endpoint, err error) {
	e.Listen = func() (net.Listener, error) { return listenMetrics(c) }
	if c.TLSCert != "" {
		e.TLS, err = metricsTLS(c)
	}
	return e, err
}

// metricsChange is a new endpoint of the metrics that a reload has prepared.
type metricsChange struct {
	endpoint metrics.Endpoint
	listener net.Listener // nil if the address has not changed
}

// prepareMetrics returns the endpoint of the metrics of a new configuration, or nil if the metrics are off. If the
// address differs, prepareMetrics opens the new socket, while the former one stays in use. The files for TLS are read
// in any case.
func (p *parts) prepareMetrics(before, next config.Metrics) (*metricsChange, error) {
	if p.metrics == nil {
		return nil, nil
	}
	e, err := metricsEndpoint(next)
	if err != nil || next.Address == before.Address {
		return &metricsChange{endpoint: e}, err
	}
	l, err := e.Listen()
	if err != nil && errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w; if %s of the daemon uses the same port, the change needs a restart", err, before.Address)
	}
	return &metricsChange{endpoint: e, listener: l}, err
}

// updateMetrics moves the server of the metrics to a new endpoint.
func (p *parts) updateMetrics(c *metricsChange) error {
	if c != nil {
		p.metricsServer.Update(c.endpoint, c.listener)
	}
	return nil
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
		p.metricsServer.Serve(ctx)
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
