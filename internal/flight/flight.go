// Package flight lets the retry of a slow operation join the first try.
package flight

import (
	"context"
	"sync"
	"time"
)

// Group runs at most one call per key at a time; a second call of the same key
// waits for the first and shares its result. The work runs on a context of its
// own: a caller that gives up does not end it while others wait, and when the
// last one has left it goes on for Linger, so that a client which retries after
// its own deadline finds the work advanced and not begun again.
//
// The zero value cancels the work as soon as its last caller leaves.
type Group[V any] struct {
	Linger time.Duration

	mu    sync.Mutex // guards calls and their waiters
	calls map[string]*call[V]
}

type call[V any] struct {
	done      chan struct{} // closed when val and err are set
	val       V
	err       error
	waiters   int
	cancel    context.CancelFunc
	linger    *time.Timer // set while nobody waits
	abandoned bool        // cancelled: nobody may join any more
}

// Do returns the result of fn for key. fn's context carries the values of the
// first caller's context but neither its cancellation nor its deadline. A
// caller whose own context ends gets that context's error.
func (g *Group[V]) Do(ctx context.Context, key string, fn func(context.Context) (V, error)) (V, error) {
	for {
		c, joined := g.join(ctx, key, fn)
		select {
		case <-c.done:
		case <-ctx.Done():
			var zero V
			if joined {
				g.leave(c)
			}
			return zero, context.Cause(ctx)
		}
		if joined {
			g.leave(c)
			return c.val, c.err
		}
		// An abandoned call has ended; the key is free for a new one.
	}
}

// Waiters returns how many callers wait for key at the moment.
func (g *Group[V]) Waiters(key string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c, ok := g.calls[key]; ok {
		return c.waiters
	}
	return 0
}

// join enters the call of key, beginning it when there is none. It reports
// false when that call was cancelled and has only to be waited for.
func (g *Group[V]) join(ctx context.Context, key string, fn func(context.Context) (V, error)) (*call[V], bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c, ok := g.calls[key]; ok {
		if c.abandoned {
			return c, false
		}
		if c.linger != nil {
			c.linger.Stop()
			c.linger = nil
		}
		c.waiters++
		return c, true
	}
	if g.calls == nil {
		g.calls = make(map[string]*call[V])
	}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &call[V]{done: make(chan struct{}), waiters: 1, cancel: cancel}
	g.calls[key] = c
	go g.run(work, key, c, fn)
	return c, true
}

func (g *Group[V]) run(ctx context.Context, key string, c *call[V], fn func(context.Context) (V, error)) {
	defer c.cancel()
	c.val, c.err = fn(ctx)
	g.mu.Lock()
	delete(g.calls, key)
	if c.linger != nil {
		c.linger.Stop()
	}
	g.mu.Unlock()
	close(c.done)
}

func (g *Group[V]) leave(c *call[V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.waiters--
	select {
	case <-c.done:
		return
	default:
	}
	if c.waiters > 0 {
		return
	}
	if g.Linger > 0 {
		c.linger = time.AfterFunc(g.Linger, func() { g.expire(c) })
		return
	}
	g.abandon(c)
}

// expire abandons work that nobody came back for. A caller that joined as the
// timer fired has cleared linger under the lock and keeps the work alive.
func (g *Group[V]) expire(c *call[V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.linger != nil && c.waiters == 0 {
		g.abandon(c)
	}
}

// abandon is called with mu held. On a finished call it has no effect.
func (g *Group[V]) abandon(c *call[V]) {
	c.abandoned = true
	c.cancel()
}
