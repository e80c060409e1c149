package container

import (
	"github.com/criserver/criserver/internal/fanout"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Event tells of one step in a container's life.
type Event struct {
	Type     cri.ContainerEventType
	Snapshot *Snapshot
}

// events hands on what happens, the steps of a container's life always in their
// order. The zero value is ready.
type events struct {
	out  fanout.Fanout[Event]
	owed map[string]owed // by id, what is not told yet; for choose and expect alone
}

// owed says which steps are about to be told. A process that ends at once is seen to
// have ended before.
type owed struct{ created, started bool }

// Subscribe calls fn for each event from now on until cancel is called. fn must
// not block and must not subscribe or cancel itself.
func (m *Manager) Subscribe(fn func(Event)) (cancel func()) { return m.events.out.Subscribe(fn) }

// expectCreate comes before anything is made, and the event, or forget, after it.
func (e *events) expectCreate(id string) { e.expect(id, func(o *owed) { o.created = true }) }

// expectStart comes before the start, and the event after it.
func (e *events) expectStart(id string) { e.expect(id, func(o *owed) { o.started = true }) }

// forget is for a creation that failed.
func (e *events) forget(id string) { e.expect(id, func(o *owed) { *o = owed{} }) }

func (e *events) expect(id string, change func(*owed)) {
	e.out.Send(func() []Event {
		o := e.owed[id]
		change(&o)
		e.set(id, o)
		return nil
	})
}

func (e *events) set(id string, o owed) {
	if o == (owed{}) {
		delete(e.owed, id)
		return
	}
	if e.owed == nil {
		e.owed = make(map[string]owed)
	}
	e.owed[id] = o
}

func (e *events) send(t cri.ContainerEventType, s *Snapshot) {
	e.out.Send(func() []Event { return e.choose(Event{t, s}) })
}

// choose returns what to tell: an end comes with the steps before it that are not
// told yet, and those are left out when their own turn comes.
func (e *events) choose(event Event) (out []Event) {
	s := event.Snapshot
	o := e.owed[s.ID]
	tell, left := true, owed{}
	switch event.Type {
	case cri.ContainerEventType_CONTAINER_CREATED_EVENT:
		tell, left = o.created, owed{started: o.started}
	case cri.ContainerEventType_CONTAINER_STARTED_EVENT:
		tell, left = o.started, owed{created: o.created}
	case cri.ContainerEventType_CONTAINER_STOPPED_EVENT:
		if o.created {
			out = append(out, Event{cri.ContainerEventType_CONTAINER_CREATED_EVENT, s})
		}
		if o.started && s.Reason != ReasonContainerCannotRun {
			out = append(out, Event{cri.ContainerEventType_CONTAINER_STARTED_EVENT, s})
		}
	}
	e.set(s.ID, left)
	if !tell {
		return nil
	}
	return append(out, event)
}
