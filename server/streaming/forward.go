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

type forwardRequest struct {
	podID string
	ports []int32
}

// dialTimeout bounds the dial of a port, which is on the same machine.
const dialTimeout = 30 * time.Second

func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	session(s, w, r, func(q forwardRequest) {
		f := forwarder(func(_ context.Context, port int32, stream io.ReadWriteCloser) error {
			if !s.begin() {
				return errEnding
			}
			defer s.sessions.Done()
			// The protocol's own context never ends; that of the connection does.
			return s.forward(r.Context(), q.podID, port, stream)
		})
		serve := func(w http.ResponseWriter, r *http.Request) {
			portforward.ServePortForward(w, r, f, q.podID, "", &portforward.V4Options{Ports: q.ports}, s.cfg.IdleTimeout, creationTimeout, portforward.SupportedProtocols)
		}
		if tunneled(r) {
			serveTunnel(w, r, serve)
			return
		}
		serve(w, r)
	})
}

type forwarder func(ctx context.Context, port int32, stream io.ReadWriteCloser) error

// PortForward serves one connection to a port.
func (f forwarder) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	return f(ctx, port, stream)
}

// forward joins a client's stream with a connection to the pod until both
// directions have ended, or the client's connection has.
func (s *Server) forward(ctx context.Context, podID string, port int32, stream io.ReadWriteCloser) error {
	if port < 1 || port > maxPort {
		return fmt.Errorf("port must be 1 to %d, is %d: %w", maxPort, port, errdefs.ErrInvalidArgument)
	}
	begun := time.Now()
	dialing, cancel := context.WithTimeout(ctx, dialTimeout)
	pod, err := s.cfg.Pods.Dial(dialing, podID, uint16(port))
	cancel()
	if err == nil {
		err = join(ctx, stream, pod)
	}
	ended(ctx, "port forward", begun, err, logrus.Fields{"pod": podID, "port": port})
	if err != nil {
		waitForReply(ctx, stream)
	}
	return err
}

// waitForReply returns when the reply to the client's stream has been sent, or
// when ctx ends. The SPDY library hands a stream over just before it sends the
// reply, and resets the stream when the port forward fails. A reset before the
// reply makes the client fail to create the stream, so that it never reads the error.
func waitForReply(ctx context.Context, stream io.ReadWriteCloser) {
	if !canHalfClose(stream) {
		return // channels of a WebSocket need no reply
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

const maxPort = 1<<16 - 1

// join copies both ways and passes each end on by itself. How the pod or the
// client breaks off is theirs to know and no error: for an error, clients give
// up the other connections too. The end of ctx is one, so that the protocol
// drops what the client has sent and nobody reads.
func join(ctx context.Context, client io.ReadWriteCloser, pod net.Conn) error {
	defer pod.Close()
	stop := context.AfterFunc(ctx, func() { _ = pod.Close() })
	defer stop()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, err := io.Copy(pod, client)
		halfClose(pod)
		if err != nil {
			// Unread it would hold up other streams of the connection.
			_, _ = io.Copy(io.Discard, client)
		}
	}()
	_, _ = io.Copy(client, pod)
	if !canHalfClose(client) {
		return context.Cause(ctx) // the protocol ends the connection, and with it the other copy
	}
	_ = client.Close()
	select {
	case <-sent:
		return context.Cause(ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func halfClose(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
}

// canHalfClose says whether Close ends just what is sent to the client: so it
// does with a stream of SPDY, and not with a channel of a WebSocket.
func canHalfClose(stream io.Closer) bool {
	_, ok := stream.(interface{ Reset() error })
	return ok
}
