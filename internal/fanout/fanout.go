// Package fanout hands on what happens to whoever listens.
package fanout

import "sync"

// Fanout is a list of listeners. The zero value is ready.
type Fanout[T any] struct {
	mu   sync.Mutex // guards the rest; held while listeners are called, so that all hear the same order
	next int
	subs map[int]func(T)
}

// Subscribe calls fn for each event from now on until cancel is called; after
// that it is not called any more. fn must not block, nor subscribe, cancel or
// send.
func (f *Fanout[T]) Subscribe(fn func(T)) (cancel func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.subs == nil {
		f.subs = make(map[int]func(T))
	}
	id := f.next
	f.next++
	f.subs[id] = fn
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.subs, id)
	}
}

// Send hands on the events that choose returns. One choose runs at a time, and
// the next one not before these events were handed on.
func (f *Fanout[T]) Send(choose func() []T) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, event := range choose() {
		for _, fn := range f.subs {
			fn(event)
		}
	}
}
