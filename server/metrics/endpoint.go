package metrics

import (
	"crypto/tls"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/sirupsen/logrus"
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

// Endpoint describes where and how a Server serves.
type Endpoint struct {
	// Listen opens the socket. It is called again after a failure.
	Listen func() (net.Listener, error)
	// TLS is nil for a server without TLS.
	TLS *tls.Config
	// Retry is the time until the next attempt to listen after a failure, 10 seconds by default.
	Retry time.Duration
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
