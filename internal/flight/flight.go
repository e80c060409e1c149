// Package flight lets the retry of a slow operation join the first attempt.
package flight

import (
	"context"
	"sync"
	"time"
)

// Group runs at most one call per key at a time. A second call with the same key waits
// for the first call and shares its result.
//
// The work runs on its own context. If a caller gives up, the work continues while
// other callers wait. When the last caller has given up, the work continues for
// Linger, so that a client that retries after its own deadline does not start the work
// again.
//
// The zero value cancels the work as soon as the last caller gives up.
type Group[V any] struct {
	Linger time.Duration

	mu    sync.Mutex // guards calls, and waiters, linger and cancelled of each call
	calls map[string]*call[V]
}

type call[V any] struct {
	done      chan struct{} // closed when val and err are set
	val       V
	err       error
	waiters   int
	cancel    context.CancelFunc
	linger    *time.Timer // nil while a caller waits
	cancelled bool        // no caller may join any more
}

// Do returns the result of fn for key. The context of fn has the values of the first
// caller's context, but neither its cancellation nor its deadline. A caller whose
// context ends gets the error of the context.
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
		// The cancelled call has ended, and the key is free for a new call.
	}
}

// Waiters returns the number of callers that wait for key.
func (g *Group[V]) Waiters(key string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c, ok := g.calls[key]; ok {
		return c.waiters
	}
	return 0
}

// join adds a waiter to the call of key, and starts the call if there is none. It
// returns false if the call was cancelled: then the caller waits for its end, and
// tries again.
func (g *Group[V]) join(ctx context.Context, key string, fn func(context.Context) (V, error)) (*call[V], bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c, ok := g.calls[key]; ok {
		if c.cancelled {
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

// run executes the work of a call.
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

// leave removes a waiter from a call. It cancels an unfinished call without waiters,
// at once or after Linger.
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
	g.cancel(c)
}

// expire cancels a call that no caller has joined within Linger. A caller that joined
// while the timer fired has set linger to nil; then the call continues.
func (g *Group[V]) expire(c *call[V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.linger != nil && c.waiters == 0 {
		g.cancel(c)
	}
}

// cancel cancels a call. It has no effect on a finished call. The caller must hold mu.
func (g *Group[V]) cancel(c *call[V]) {
	c.cancelled = true
	c.cancel()
}
