package metrics

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sirupsen/logrus"
	"golang.org/x/net/netutil"
)

// Limits of the HTTP server. A scrape takes milliseconds; Prometheus waits for ten seconds by default.
const (
	maxConnections   = 16
	maxScrapes       = 4
	maxHeaderBytes   = 16 << 10
	readTimeout      = 10 * time.Second
	writeTimeout     = 30 * time.Second
	idleTimeout      = 2 * time.Minute
	handshakeTimeout = 10 * time.Second
	stopTimeout      = time.Second
	// retryInterval is the time until the next attempt to listen after a failure.
	retryInterval = 10 * time.Second
)

// Path is the path of the metrics on the HTTP server.
const Path = "/metrics"

// Endpoint is the HTTP server of the metrics.
type Endpoint struct {
	// Listen opens the socket. It is called again after a failure.
	Listen func() (net.Listener, error)
	// TLS is nil for a server without TLS.
	TLS *tls.Config
	// Retry is the time until the next attempt to listen after a failure, 10 seconds by default.
	Retry time.Duration
}

// Serve serves the metrics until ctx ends. A failure does not end Serve, because the CRI does not depend on the
// metrics: Serve logs the failure once and tries again at intervals.
func (m *Metrics) Serve(ctx context.Context, e Endpoint) {
	if e.Retry <= 0 {
		e.Retry = retryInterval
	}
	last := ""
	for {
		err := m.serve(ctx, e, &last)
		if ctx.Err() != nil {
			return
		}
		if text := err.Error(); text != last {
			logrus.WithContext(ctx).WithError(err).Warn("the metrics are not available; the daemon tries again at intervals")
			last = text
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(e.Retry):
		}
	}
}

// serve listens and serves until ctx ends or the server fails. It clears *failure when the server listens.
func (m *Metrics) serve(ctx context.Context, e Endpoint, failure *string) error {
	l, err := e.Listen()
	if err != nil {
		return err
	}
	*failure = ""
	logrus.WithContext(ctx).WithField("address", l.Addr().String()).Info("serving metrics")
	l = netutil.LimitListener(l, maxConnections)
	if e.TLS != nil {
		l = tls.NewListener(l, e.TLS)
	}
	s := &http.Server{
		Handler: m.Handler(), MaxHeaderBytes: maxHeaderBytes, ReadTimeout: readTimeout, ReadHeaderTimeout: handshakeTimeout,
		WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, ErrorLog: log.New(logWriter{}, "", 0),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if s.Shutdown(stopCtx) != nil {
			_ = s.Close() // closes the connections that Shutdown has waited for
		}
	})
	err = s.Serve(l)
	if !stop() {
		<-stopped
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return errors.Join(fmt.Errorf("serve metrics: %w", err), s.Close())
	}
	return nil
}

// Handler returns the handler of HTTP requests, which serves Path.
func (m *Metrics) Handler() http.Handler {
	scrape := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog: log.New(logWriter{}, "", 0), ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxScrapes, Timeout: readTimeout,
	})
	mux := http.NewServeMux()
	mux.Handle("GET "+Path, scrape)
	return mux
}

// logWriter writes the messages of net/http to the log: failed TLS handshakes and panics.
type logWriter struct{}

func (logWriter) Write(p []byte) (int, error) {
	logrus.WithField("part", "metrics").Warn(string(p))
	return len(p), nil
}
