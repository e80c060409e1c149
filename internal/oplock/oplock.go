// Package oplock provides one lock per key, for operations on a pod, container or layer
// that must not run at the same time.
package oplock

import (
	"context"
	"fmt"
	"sync"

	"github.com/criserver/criserver/internal/steps"
)

// Locks is a set of locks by key. The zero value is ready to use. A key uses memory only
// while its lock is held or waited for.
type Locks struct {
	mu    sync.Mutex // guards locks and users; never held during a wait
	locks map[string]*lock
}

type lock struct {
	held  chan struct{} // has capacity 1, and is full while the lock is held
	users int           // the holder and the waiters
}

// Lock waits for the lock of key. The caller must call unlock once when the operation
// ends. The only error is the error of the context.
func (l *Locks) Lock(ctx context.Context, key string) (unlock func(), err error) {
	l.mu.Lock()
	if l.locks == nil {
		l.locks = make(map[string]*lock)
	}
	lk := l.locks[key]
	if lk == nil {
		lk = &lock{held: make(chan struct{}, 1)}
		l.locks[key] = lk
	}
	lk.users++
	l.mu.Unlock()

	unlock = func() { <-lk.held; l.leave(key, lk) }
	select {
	case lk.held <- struct{}{}:
		return unlock, nil
	default:
	}
	_, step := steps.Start(ctx, steps.LockWait, steps.Lock(key))
	defer step.EndWith(&err)
	select {
	case lk.held <- struct{}{}:
		return unlock, nil
	case <-ctx.Done():
		l.leave(key, lk)
		return nil, fmt.Errorf("wait for the running operation on %s: %w", key, context.Cause(ctx))
	}
}

// leave removes a user of the lock of key.
func (l *Locks) leave(key string, lk *lock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lk.users--; lk.users == 0 {
		delete(l.locks, key)
	}
}
