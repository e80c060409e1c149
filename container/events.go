package container

import (
	"sync"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Event tells of one step in a container's life.
type Event struct {
	Type     cri.ContainerEventType
	Snapshot *Snapshot
}

// events hands on what happens. The zero value is ready.
type events struct {
	mu   sync.Mutex // guards the rest
	next int
	subs map[int]func(Event)
}

// Subscribe calls fn for each event from now on until cancel is called. fn must
// not block and must not subscribe or cancel itself.
func (m *Manager) Subscribe(fn func(Event)) (cancel func()) {
	e := &m.events
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.subs == nil {
		e.subs = make(map[int]func(Event))
	}
	id := e.next
	e.next++
	e.subs[id] = fn
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.subs, id)
	}
}

func (e *events) send(t cri.ContainerEventType, s *Snapshot) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, fn := range e.subs {
		fn(Event{t, s})
	}
}
