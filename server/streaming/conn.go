package streaming

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// The causes of sessions that end early.
var (
	errClientLeft = errors.New("client closed the connection")
	errStopping   = errors.New("daemon is stopping")
)

// closeTimeout bounds the wait for a client to read the last data.
const closeTimeout = 5 * time.Second

// conn is a connection of a client.
type conn struct {
	*net.TCPConn
	l  *listener
	id int32

	mu       sync.Mutex              // guards the fields below
	cancel   context.CancelCauseFunc // of the context of the connection's requests, nil before the first request
	cause    error                   // why the connection was closed, nil while it is open
	upgraded bool
}

// Close closes the sending side and waits for the client to close its side, for
// closeTimeout at most. If a connection with unread input were closed at once, the
// kernel would drop the output that the client has not received yet.
func (c *conn) Close() error {
	if c.isClosed() || c.CloseWrite() != nil {
		return c.closeNow(net.ErrClosed)
	}
	timer := time.AfterFunc(closeTimeout, func() { _ = c.closeNow(net.ErrClosed) })
	defer timer.Stop()
	_, _ = io.Copy(io.Discard, c.TCPConn)
	return c.closeNow(net.ErrClosed)
}

func (c *conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause != nil
}

// closeNow closes the connection without waiting, and cancels its context.
func (c *conn) closeNow(cause error) error {
	c.l.remove(c)
	c.mu.Lock()
	alreadyClosed := c.cause != nil
	if !alreadyClosed {
		c.cause = cause
	}
	cancel := c.cancel
	c.mu.Unlock()
	if alreadyClosed {
		return nil
	}
	if cancel != nil {
		cancel(cause)
	}
	return c.TCPConn.Close()
}

// closeAfterSession closes an upgraded connection some time after its session. The
// library closes the connection at the end of a session, except when the client
// opened too few or too many streams.
func (c *conn) closeAfterSession() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.upgraded {
		time.AfterFunc(2*closeTimeout, func() { _ = c.closeNow(net.ErrClosed) })
	}
}

// context returns the context for the connection's requests. It is cancelled when
// the connection is closed.
func (c *conn) context(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, connKey{}, c))
	c.mu.Lock()
	c.cancel = cancel
	cause := c.cause
	c.mu.Unlock()
	if cause != nil {
		cancel(cause)
	}
	return ctx
}

type connKey struct{}

// connFromContext returns the connection of a request, or nil.
func connFromContext(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}

// rawConn returns the connection that net/http got from the listener, without TLS.
func rawConn(c net.Conn) *conn {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return c.(*conn) // the listener accepts no other type
}

// connContext is http.Server.ConnContext.
func connContext(ctx context.Context, c net.Conn) context.Context { return rawConn(c).context(ctx) }

// connState is http.Server.ConnState.
func connState(c net.Conn, state http.ConnState) {
	if state == http.StateHijacked {
		c := rawConn(c)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.upgraded = true
	}
}
