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

// Why sessions end before their time.
var (
	errLeft   = errors.New("the client left")
	errEnding = errors.New("the daemon is about to end")
)

// lingerFor bounds the wait for a client to read what was sent to it last.
const lingerFor = 5 * time.Second

// conn is a client's connection.
type conn struct {
	*net.TCPConn
	l  *listener
	id int32

	mu       sync.Mutex              // guards all below
	end      context.CancelCauseFunc // of the context of its requests; nil until there is one
	cause    error                   // why it has ended, or nil
	upgraded bool
}

// Close ends the connection once the client has taken what was sent, or has
// had time to: closed with something unread from the client, it would drop that.
func (c *conn) Close() error {
	if c.ended() || c.CloseWrite() != nil {
		return c.shut(net.ErrClosed)
	}
	timer := time.AfterFunc(lingerFor, func() { _ = c.shut(net.ErrClosed) })
	defer timer.Stop()
	_, _ = io.Copy(io.Discard, c.TCPConn)
	return c.shut(net.ErrClosed)
}

func (c *conn) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause != nil
}

// shut closes the connection at once, and ends its context.
func (c *conn) shut(cause error) error {
	c.l.remove(c)
	c.mu.Lock()
	first := c.cause == nil
	if first {
		c.cause = cause
	}
	end := c.end
	c.mu.Unlock()
	if !first {
		return nil
	}
	if end != nil {
		end(cause)
	}
	return c.TCPConn.Close()
}

// finish is called after a session. The protocol has closed the connection, but
// for that of a client which opened too few streams, or too many: it is
// forgotten there.
func (c *conn) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.upgraded {
		time.AfterFunc(2*lingerFor, func() { _ = c.shut(net.ErrClosed) })
	}
}

// context is that of the connection's requests: it ends when the client leaves.
func (c *conn) context(ctx context.Context) context.Context {
	ctx, end := context.WithCancelCause(context.WithValue(ctx, connKey{}, c))
	c.mu.Lock()
	c.end = end
	cause := c.cause
	c.mu.Unlock()
	if cause != nil {
		end(cause)
	}
	return ctx
}

type connKey struct{}

func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}

// own is the conn below what net/http knows.
func own(c net.Conn) *conn {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return c.(*conn) // nothing else is accepted
}

func connContext(ctx context.Context, c net.Conn) context.Context { return own(c).context(ctx) }

func connState(c net.Conn, state http.ConnState) {
	if state == http.StateHijacked {
		c := own(c)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.upgraded = true
	}
}
