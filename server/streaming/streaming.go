// Package streaming serves what gRPC cannot carry: the streams of exec, attach
// and port-forward, over SPDY or WebSocket, to the clients to whom the kubelet
// passes them on. The CRI hands out the address of each as a URL with a secret,
// good once and for a minute, which is all that a client has to show.
//
// It owns the HTTP side, its connections and their ends; what is done in a
// container or pod is that of the interfaces [Containers] and [Pods]. The
// protocols are those of k8s.io/cri-streaming.
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
	"time"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/criserver/criserver/container"
)

// Containers is what is asked of containers.
type Containers interface {
	Exec(ctx context.Context, id string, cmd []string, tty bool, s container.Streams) (exitCode int32, err error)
	Attach(ctx context.Context, id string, s container.Streams) error
}

// Pods is what is asked of pods.
type Pods interface {
	// Dial connects to a TCP port inside a pod.
	Dial(ctx context.Context, id string, port uint16) (net.Conn, error)
}

// Options are the streams that a client takes part in.
type Options = remotecommand.Options

// Config is what a Server works with.
type Config struct {
	Containers Containers
	Pods       Pods
	// IdleTimeout ends connections on which nothing is said. 0 is never.
	IdleTimeout time.Duration
	// TLS is nil for plain connections.
	TLS *tls.Config
}

const (
	// creationTimeout bounds the wait for a client to open its streams.
	creationTimeout = 30 * time.Second
	// headerTimeout bounds the wait for a request.
	headerTimeout = 30 * time.Second
	maxHeader     = 64 << 10 // bytes
)

// Server hands out addresses of streams and serves them.
type Server struct {
	cfg     Config
	pending pending

	mu       sync.Mutex // guards base, and the first use of sessions
	base     *url.URL   // nil unless serving
	sessions sync.WaitGroup
}

// New returns a Server that serves nothing yet.
func New(cfg Config) *Server { return &Server{cfg: cfg} }

// Exec returns the address at which a client finds the streams of a command.
func (s *Server) Exec(id string, cmd []string, o Options) (string, error) {
	return s.address("exec", execRequest{id, cmd, o})
}

// Attach returns the address at which a client finds the container's streams.
func (s *Server) Attach(id string, o Options) (string, error) {
	return s.address("attach", attachRequest{id, o})
}

// PortForward returns the address at which a client reaches the pod's ports.
// Clients that speak SPDY name the ports themselves.
func (s *Server) PortForward(podID string, ports []int32) (string, error) {
	return s.address("portforward", forwardRequest{podID, ports})
}

func (s *Server) address(kind string, request any) (string, error) {
	s.mu.Lock()
	base := s.base
	s.mu.Unlock()
	if base == nil {
		return "", fmt.Errorf("streams are not served at present: %w", errdefs.ErrUnavailable)
	}
	token, err := s.pending.add(request)
	if err != nil {
		return "", err
	}
	return base.JoinPath(kind, token).String(), nil
}

// Serve serves streams on the listener until ctx ends. Then it cuts all
// connections, and returns when what ran for them has ended.
func (s *Server) Serve(ctx context.Context, l *net.TCPListener) error {
	conns, err := newListener(l)
	if err != nil {
		return errors.Join(fmt.Errorf("serve streams: %w", err), l.Close())
	}
	h := s.httpServer(ctx)
	s.open(l.Addr())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(conns.watch)
	g.Go(func() error { return serve(h, conns, s.cfg.TLS) })
	g.Go(func() error {
		<-ctx.Done()
		conns.cut()
		err := h.Close()
		s.close()
		return errors.Join(err, conns.release())
	})
	if err := g.Wait(); err != nil {
		return fmt.Errorf("serve streams: %w", err)
	}
	return nil
}

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
	protocols.SetHTTP1(true) // of HTTP/2 nothing can be upgraded
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

func (s *Server) open(addr net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.base = &url.URL{Scheme: "http", Host: addr.String(), Path: "/"}
	if s.cfg.TLS != nil {
		s.base.Scheme = "https"
	}
}

// close waits for the sessions; no new ones begin.
func (s *Server) close() {
	s.mu.Lock()
	s.base = nil
	s.mu.Unlock()
	s.sessions.Wait()
}

// begin counts what runs for a client, unless the server is about to end.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.base == nil {
		return false
	}
	s.sessions.Add(1)
	return true
}

// logWriter takes what net/http has to say: failed handshakes and panics.
type logWriter struct{}

func (logWriter) Write(p []byte) (int, error) {
	logrus.WithField("part", "streaming").Warn(string(p))
	return len(p), nil
}
