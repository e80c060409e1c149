// Package oplock holds one operation lock per key, for work that must not run
// twice at once on the same pod, container or layer.
package oplock

import (
	"context"
	"fmt"
	"sync"
)

// Locks is a set of locks by key. The zero value is ready. A key that nobody
// holds or waits for takes no memory.
type Locks struct {
	mu    sync.Mutex // guards locks; never held across a wait
	locks map[string]*entry
}

type entry struct {
	held  chan struct{} // capacity one: full while the lock is held
	users int           // holder and waiters
}

// Lock waits for the lock of key and returns its release, to be called once.
// It fails only with the context's error.
func (l *Locks) Lock(ctx context.Context, key string) (unlock func(), err error) {
	l.mu.Lock()
	if l.locks == nil {
		l.locks = make(map[string]*entry)
	}
	e := l.locks[key]
	if e == nil {
		e = &entry{held: make(chan struct{}, 1)}
		l.locks[key] = e
	}
	e.users++
	l.mu.Unlock()

	select {
	case e.held <- struct{}{}:
		return func() { <-e.held; l.leave(key, e) }, nil
	case <-ctx.Done():
		l.leave(key, e)
		return nil, fmt.Errorf("wait for the operation under way on %s: %w", key, context.Cause(ctx))
	}
}

func (l *Locks) leave(key string, e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.users--; e.users == 0 {
		delete(l.locks, key)
	}
}
