// Package fanout sends each event to all subscribers.
package fanout

import "sync"

// Fanout is a set of subscribers. The zero value is ready to use.
type Fanout[T any] struct {
	// mu guards the fields below. It is held while the subscribers are called, so that
	// all subscribers receive the events in the same order.
	mu          sync.Mutex
	nextID      int
	subscribers map[int]func(T)
}

// Subscribe calls fn for each event from now on. When cancel has returned, fn is not
// called any more. fn must not block, and must not call Subscribe, cancel or Send,
// because the lock is held.
func (f *Fanout[T]) Subscribe(fn func(T)) (cancel func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.subscribers == nil {
		f.subscribers = make(map[int]func(T))
	}
	id := f.nextID
	f.nextID++
	f.subscribers[id] = fn
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.subscribers, id)
	}
}

// Send sends the events that produce returns. Calls of Send run one after the other:
// produce is called after the events of the previous call were sent.
func (f *Fanout[T]) Send(produce func() []T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, event := range produce() {
		for _, fn := range f.subscribers {
			fn(event)
		}
	}
}
