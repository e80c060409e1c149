// Package telemetry makes the metrics and the tracer of the daemon from its configuration: endpoints, TLS and sockets.
// Packages server/metrics and internal/tracing serve and export them.
package telemetry

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/internal/daemon/listen"
	"github.com/criserver/criserver/server/metrics"
	"github.com/criserver/criserver/server/streaming"
)

// NewMetrics returns the metrics and their HTTP server, or nil if they are off.
func NewMetrics(cfg config.Config, version string) (*metrics.Metrics, *metrics.Server, error) {
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

// MetricsChange is a new endpoint of the metrics that a reload has prepared.
type MetricsChange struct {
	endpoint metrics.Endpoint
	listener net.Listener // nil if the address has not changed
}

// PrepareMetrics returns the endpoint of the metrics of a new configuration. If the address differs, PrepareMetrics
// opens the new socket, while the former one stays in use. The files for TLS are read in any case. The caller must not
// call PrepareMetrics if the metrics are off.
func PrepareMetrics(before, next config.Metrics) (*MetricsChange, error) {
	e, err := metricsEndpoint(next)
	if err != nil || next.Address == before.Address {
		return &MetricsChange{endpoint: e}, err
	}
	l, err := e.Listen()
	if err != nil && errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w; if %s of the daemon uses the same port, the change needs a restart", err, before.Address)
	}
	return &MetricsChange{endpoint: e, listener: l}, err
}

// Apply moves the server of the metrics to the new endpoint.
func (c *MetricsChange) Apply(server *metrics.Server) { server.Update(c.endpoint, c.listener) }

// metricsTLS returns the TLS configuration of the server of the metrics.
func metricsTLS(c config.Metrics) (*tls.Config, error) {
	t, err := streaming.TLSConfig(streaming.TLSOptions{CertFile: c.TLSCert, KeyFile: c.TLSKey, ClientCAFile: c.TLSClientCA})
	if err != nil {
		return nil, fmt.Errorf("metrics.tls_cert, metrics.tls_key or metrics.tls_client_ca: %w", err)
	}
	return t, nil
}

// listenMetrics opens the socket of the metrics. A unix socket is for root only. Like listen.CRI, listenMetrics
// replaces the socket of an earlier daemon, but not one that another process serves.
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
		l, err = listen.Unix(path, func() error { return os.Chmod(path, 0o600) })
	}
	if err != nil {
		return nil, fmt.Errorf("metrics.address: %w", err)
	}
	return l, nil
}
