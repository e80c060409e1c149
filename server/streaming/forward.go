package streaming

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
)

// forwardRequest is a request of the RPC PortForward.
type forwardRequest struct {
	podID string
	ports []int32
}

const (
	// dialTimeout bounds the wait for the connection to a port, which is on the same
	// machine.
	dialTimeout = 30 * time.Second
	maxPort     = 1<<16 - 1
)

// portForward handles the URLs of PortForward.
func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	serveRequest(s, w, r, func(req forwardRequest) {
		f := forwarder(func(_ context.Context, port int32, stream io.ReadWriteCloser) error {
			if !s.startSession() {
				return errStopping
			}
			defer s.sessions.Done()
			// The context that the library passes never ends. The request's context ends with
			// the connection.
			return s.forward(r.Context(), req.podID, port, stream)
		})
		serve := func(w http.ResponseWriter, r *http.Request) {
			portforward.ServePortForward(w, r, f, req.podID, "", &portforward.V4Options{Ports: req.ports}, s.idleTimeout(), creationTimeout, portforward.SupportedProtocols)
		}
		if isTunnelRequest(r) {
			serveTunnel(w, r, serve)
			return
		}
		serve(w, r)
	})
}

// forwarder implements portforward.PortForwarder.
type forwarder func(ctx context.Context, port int32, stream io.ReadWriteCloser) error

// PortForward forwards one connection to a port.
func (f forwarder) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	return f(ctx, port, stream)
}

// forward connects to a port of a pod and relays the stream, until both directions
// have ended or the client's connection is closed.
func (s *Server) forward(ctx context.Context, podID string, port int32, stream io.ReadWriteCloser) error {
	if port < 1 || port > maxPort {
		return fmt.Errorf("port must be 1 to %d, is %d: %w", maxPort, port, errdefs.ErrInvalidArgument)
	}
	start := time.Now()
	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	pod, err := s.cfg.Pods.Dial(dialCtx, podID, uint16(port))
	cancel()
	if err == nil {
		err = relay(ctx, stream, pod)
	}
	logSession(ctx, "port forward", start, err, logrus.Fields{"pod": podID, "port": port})
	if err != nil {
		waitForReply(ctx, stream)
	}
	return err
}

// waitForReply returns when the reply to the client's stream has been sent, or when ctx
// ends. The SPDY library passes a stream to the handler before it sends the reply, and
// resets the stream when the port forward fails. After a reset before the reply, the
// client fails to create the stream and never reads the error.
func waitForReply(ctx context.Context, stream io.ReadWriteCloser) {
	if !canHalfClose(stream) {
		return // a channel of a WebSocket has no reply
	}
	replied := make(chan struct{})
	go func() {
		defer close(replied)
		_, _ = stream.Write(nil) // waits for the reply, then sends an empty frame
	}()
	select {
	case <-replied:
	case <-ctx.Done():
	}
}

// relay copies data in both directions, and closes each direction when its source
// ends.
//
// It returns no error when the pod or the client breaks the connection, because
// clients would close all other forwarded connections after an error. It returns an
// error when ctx ends, so that the library drops the data that the client has sent.
func relay(ctx context.Context, client io.ReadWriteCloser, pod net.Conn) error {
	defer pod.Close()
	stop := context.AfterFunc(ctx, func() { _ = pod.Close() })
	defer stop()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, err := io.Copy(pod, client)
		closeWrite(pod)
		if err != nil {
			// Unread data would block the other streams of the connection.
			_, _ = io.Copy(io.Discard, client)
		}
	}()
	_, _ = io.Copy(client, pod)
	if !canHalfClose(client) {
		return context.Cause(ctx) // the library closes the connection, which ends the other copy
	}
	_ = client.Close()
	select {
	case <-sent:
		return context.Cause(ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// closeWrite closes the sending side of a connection.
func closeWrite(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
}

// canHalfClose reports whether Close closes only the direction to the client. That
// holds for a stream of SPDY, and not for a channel of a WebSocket.
func canHalfClose(stream io.Closer) bool {
	_, ok := stream.(interface{ Reset() error })
	return ok
}
