package telemetry

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/internal/tracing"
)

const (
	// traceFlushTimeout limits the export of the last spans when the daemon stops.
	traceFlushTimeout = 3 * time.Second
	// traceLogInterval is the time between two messages about failed exports.
	traceLogInterval = time.Minute
)

// NewRecorder returns the recorder of steps, which notifies observers, and the tracer that exports the steps, which is
// nil if tracing is off.
func NewRecorder(cfg config.Tracing, version string, timelines *steps.Timelines, observers ...steps.Observer) (*steps.Recorder, *tracing.Tracer, error) {
	if cfg.Endpoint == "" {
		return steps.NewRecorder(timelines, observers...), nil, nil
	}
	c := tracing.Config{
		Endpoint: cfg.Endpoint, SamplingPerMillion: cfg.SamplingPerMillion, Version: version,
		FlushTimeout: traceFlushTimeout, Failed: logTraceFailures(),
	}
	if cfg.UseTLS() {
		var err error
		if c.TLS, err = tracingTLS(cfg); err != nil {
			return nil, nil, err
		}
	}
	tracer, err := tracing.New(c)
	if err != nil {
		return nil, nil, err
	}
	return steps.NewRecorder(timelines, append(observers, tracer)...), tracer, nil
}

// tracingTLS returns the TLS configuration of the connection to the collector.
func tracingTLS(cfg config.Tracing) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.TLSCA != "" {
		pem, err := os.ReadFile(cfg.TLSCA)
		if err != nil {
			return nil, fmt.Errorf("tracing.tls_ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tracing.tls_ca: %s contains no certificate in PEM format", cfg.TLSCA)
		}
	}
	if cfg.TLSCert != "" {
		if _, err := tls.LoadX509KeyPair(cfg.TLSCert, cfg.TLSKey); err != nil {
			return nil, fmt.Errorf("tracing.tls_cert: %w", err)
		}
		// The files are read for each connection, because certificates are renewed.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(cfg.TLSCert, cfg.TLSKey)
			return &cert, err
		}
	}
	return c, nil
}

// logTraceFailures returns a function that logs the errors of exports, but at most one per traceLogInterval, because
// each batch fails while the collector does not run.
func logTraceFailures() func(error) {
	var mu sync.Mutex // guards last
	var last time.Time
	return func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(last) < traceLogInterval {
			return
		}
		last = time.Now()
		logrus.WithError(err).Warn("export of traces failed; the spans are dropped")
	}
}
