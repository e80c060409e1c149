// Package streaming serves the streams of exec, attach and port-forward over SPDY
// and WebSocket. An RPC of the CRI returns a URL with a random token, and the kubelet
// connects its client to the URL. The token is valid once and for one minute; the
// client needs no other credentials.
//
// The package owns the HTTP server and its connections. The interfaces [Containers]
// and [Pods] do the work in a container or pod. The package k8s.io/cri-streaming
// implements the protocols, except version 5 of the WebSocket channels.
package streaming

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/criserver/criserver/container"
)

// Containers connects streams to containers. *container.Manager implements it.
type Containers interface {
	Exec(ctx context.Context, id string, cmd []string, tty bool, s container.Streams) (exitCode int32, err error)
	Attach(ctx context.Context, id string, s container.Streams) error
}

// Pods connects to pods. *sandbox.Manager implements it.
type Pods interface {
	// Dial connects to a TCP port inside a pod.
	Dial(ctx context.Context, id string, port uint16) (net.Conn, error)
}

// Options says which streams a client opens.
type Options = remotecommand.Options

// Config configures a Server.
type Config struct {
	Containers Containers
	Pods       Pods
	// IdleTimeout closes connections without traffic. 0 means never.
	IdleTimeout time.Duration
	// TLS is nil for connections without TLS.
	TLS *tls.Config
}

const (
	// creationTimeout bounds the wait for a client to open its streams.
	creationTimeout = 30 * time.Second
	// headerTimeout bounds the wait for a request.
	headerTimeout = 30 * time.Second
	// maxHeader bounds the header of a request, in bytes.
	maxHeader = 64 << 10
)

// Server registers streams under URLs and serves them.
type Server struct {
	cfg      Config // without the settings
	settings atomic.Pointer[settings]
	pending  pendingRequests

	mu       sync.Mutex     // guards baseURL, and keeps sessions.Add before sessions.Wait
	baseURL  *url.URL       // nil unless Serve runs
	sessions sync.WaitGroup // running execs, attaches and forwarded connections
}

// settings are the fields of Config that Update replaces.
type settings struct {
	idleTimeout time.Duration
	tls         *tls.Config
}

// New returns a Server that Serve starts.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg}
	s.settings.Store(&settings{cfg.IdleTimeout, cfg.TLS})
	s.cfg.IdleTimeout, s.cfg.TLS = 0, nil
	return s
}

// Update replaces the timeout and the TLS configuration for connections that begin after it. It
// returns ErrInvalidArgument, and changes nothing, if it would turn TLS on or off, because clients
// may have URLs of the server.
func (s *Server) Update(idleTimeout time.Duration, config *tls.Config) error {
	if (config == nil) != (s.settings.Load().tls == nil) {
		return fmt.Errorf("TLS of the streaming server cannot be turned on or off: %w", errdefs.ErrInvalidArgument)
	}
	s.settings.Store(&settings{idleTimeout, config})
	return nil
}

// idleTimeout returns the timeout for a new connection.
func (s *Server) idleTimeout() time.Duration { return s.settings.Load().idleTimeout }

// tlsConfig returns the TLS configuration of the listener, or nil without TLS. Each connection uses
// the configuration that is in force when it begins.
func (s *Server) tlsConfig() *tls.Config {
	if s.settings.Load().tls == nil {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			config := s.settings.Load().tls
			if choose := config.GetConfigForClient; choose != nil {
				return choose(hello)
			}
			return config, nil
		},
	}
}

// Exec returns the URL at which a client runs a command and opens its streams.
func (s *Server) Exec(id string, cmd []string, o Options) (string, error) {
	return s.register("exec", execRequest{id, cmd, o})
}

// Attach returns the URL at which a client opens the streams of a container.
func (s *Server) Attach(id string, o Options) (string, error) {
	return s.register("attach", attachRequest{id, o})
}

// PortForward returns the URL at which a client connects to ports of a pod. The ports
// are for clients that use WebSocket channels; other clients name the ports in the
// protocol.
func (s *Server) PortForward(podID string, ports []int32) (string, error) {
	return s.register("portforward", forwardRequest{podID, ports})
}

// register adds a request to the pending requests and returns its URL.
func (s *Server) register(kind string, request any) (string, error) {
	s.mu.Lock()
	base := s.baseURL
	s.mu.Unlock()
	if base == nil {
		return "", fmt.Errorf("streaming server is not running: %w", errdefs.ErrUnavailable)
	}
	token, err := s.pending.add(request)
	if err != nil {
		return "", err
	}
	return base.JoinPath(kind, token).String(), nil
}

// Serve serves streams on the listener until ctx ends. Then it closes all
// connections, and returns when all sessions have ended.
func (s *Server) Serve(ctx context.Context, l *net.TCPListener) error {
	conns, err := newListener(l)
	if err != nil {
		return errors.Join(fmt.Errorf("serve streams: %w", err), l.Close())
	}
	h := s.httpServer(ctx)
	s.setBaseURL(l.Addr())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(conns.watchHangups)
	g.Go(func() error { return serve(h, conns, s.tlsConfig()) })
	g.Go(func() error {
		<-ctx.Done()
		conns.closeConns()
		err := h.Close()
		s.waitForSessions()
		return errors.Join(err, conns.closeEpoll())
	})
	if err := g.Wait(); err != nil {
		return fmt.Errorf("serve streams: %w", err)
	}
	return nil
}

// serve serves HTTP, or HTTPS if config is not nil.
func serve(h *http.Server, l net.Listener, config *tls.Config) error {
	if config != nil {
		l = tls.NewListener(l, config)
	}
	if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *Server) httpServer(ctx context.Context) *http.Server {
	mux := http.NewServeMux()
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		mux.HandleFunc(method+" /exec/{token}", s.exec)
		mux.HandleFunc(method+" /attach/{token}", s.attach)
		mux.HandleFunc(method+" /portforward/{token}", s.portForward)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // an HTTP/2 connection cannot be upgraded
	return &http.Server{
		Handler:           mux,
		Protocols:         protocols,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       headerTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       connContext,
		ConnState:         connState,
		ErrorLog:          log.New(logWriter{}, "", 0),
	}
}

// setBaseURL allows requests and sessions.
func (s *Server) setBaseURL(addr net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.baseURL = &url.URL{Scheme: "http", Host: addr.String(), Path: "/"}
	if s.settings.Load().tls != nil {
		s.baseURL.Scheme = "https"
	}
}

// waitForSessions refuses new requests and sessions, and waits for the running
// sessions.
func (s *Server) waitForSessions() {
	s.mu.Lock()
	s.baseURL = nil
	s.mu.Unlock()
	s.sessions.Wait()
}

// startSession adds a session, for which the caller must call sessions.Done. It
// returns false if the server is stopping.
func (s *Server) startSession() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.baseURL == nil {
		return false
	}
	s.sessions.Add(1)
	return true
}

// logWriter writes the messages of net/http to the log: failed TLS handshakes and
// panics.
type logWriter struct{}

func (logWriter) Write(p []byte) (int, error) {
	logrus.WithField("part", "streaming").Warn(string(p))
	return len(p), nil
}
