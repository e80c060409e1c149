package metrics

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/net/netutil"
)

// Server serves the metrics over HTTP at an endpoint that can change.
type Server struct {
	handler http.Handler

	mu       sync.Mutex // guards the fields below
	endpoint Endpoint
	opened   net.Listener       // the socket of the endpoint before Serve uses it; nil: Serve calls endpoint.Listen
	current  *http.Server       // nil while the server does not listen
	leave    context.CancelFunc // makes Serve use another endpoint
	ended    bool               // Serve has returned
}

// NewServer returns a server of the metrics.
func (m *Metrics) NewServer(e Endpoint) *Server {
	return &Server{handler: m.Handler(), endpoint: e, leave: func() {}}
}

// Update changes the endpoint. l is the open socket of the new endpoint. The server closes its former socket, and
// requests that came from it have a second to end. If l is nil, the server keeps its socket, and e.TLS applies to new
// connections; idle connections are closed, so that their clients connect again.
func (s *Server) Update(e Endpoint, l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endpoint = e
	switch {
	case l != nil && s.ended:
		_ = l.Close()
	case l != nil:
		if s.opened != nil {
			_ = s.opened.Close()
		}
		s.opened = l
		s.leave()
	case s.current != nil:
		s.current.SetKeepAlivesEnabled(false)
		s.current.SetKeepAlivesEnabled(true)
	}
}

// Serve serves the metrics until ctx ends. A failure does not end Serve, because the CRI does not depend on the
// metrics: Serve logs the failure once and tries again at intervals.
func (s *Server) Serve(ctx context.Context) {
	defer s.end()
	last := ""
	for ctx.Err() == nil {
		stay, e, l := s.begin(ctx)
		err := s.serve(stay, e, l, &last)
		if stay.Err() != nil {
			continue // another endpoint, or the end
		}
		if text := err.Error(); text != last {
			logrus.WithContext(ctx).WithError(err).Warn("the metrics are not available; the daemon tries again at intervals")
			last = text
		}
		select {
		case <-stay.Done():
		case <-time.After(e.Retry):
		}
	}
}

// begin returns the endpoint, and its socket if the socket is open. The context ends when ctx ends or the server has to
// use another socket.
func (s *Server) begin(ctx context.Context) (context.Context, Endpoint, net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave() // releases the former context
	ctx, s.leave = context.WithCancel(ctx)
	e, l := s.endpoint, s.opened
	s.opened = nil
	if e.Retry <= 0 {
		e.Retry = retryInterval
	}
	return ctx, e, l
}

// end closes a socket that Serve has not used.
func (s *Server) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave()
	s.ended = true
	if s.opened != nil {
		_ = s.opened.Close()
		s.opened = nil
	}
}

// serve serves until ctx ends or the server fails. It clears *failure when the server listens.
func (s *Server) serve(ctx context.Context, e Endpoint, l net.Listener, failure *string) error {
	if l == nil {
		var err error
		if l, err = e.Listen(); err != nil {
			return err
		}
	}
	*failure = ""
	logrus.WithContext(ctx).WithField("address", l.Addr().String()).Info("serving metrics")
	h := &http.Server{
		Handler: s.handler, MaxHeaderBytes: maxHeaderBytes, ReadTimeout: readTimeout, ReadHeaderTimeout: handshakeTimeout,
		WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, ErrorLog: log.New(logWriter{}, "", 0),
	}
	s.setCurrent(h)
	defer s.setCurrent(nil)
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if h.Shutdown(stopCtx) != nil {
			_ = h.Close() // closes the connections that Shutdown has waited for
		}
	})
	err := h.Serve(tlsListener{netutil.LimitListener(l, maxConnections), s})
	if !stop() {
		<-stopped
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return errors.Join(fmt.Errorf("serve metrics: %w", err), h.Close())
	}
	return nil
}

func (s *Server) setCurrent(h *http.Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = h
}

// tlsListener applies the TLS configuration of the endpoint to each connection.
type tlsListener struct {
	net.Listener
	server *Server
}

// Accept returns the next connection. net/http performs the handshake of TLS.
func (l tlsListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.server.mu.Lock()
	config := l.server.endpoint.TLS
	l.server.mu.Unlock()
	if config == nil {
		return c, nil
	}
	return tls.Server(c, config), nil
}
