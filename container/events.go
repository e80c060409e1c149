package container

import (
	"github.com/criserver/criserver/internal/fanout"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Event is one step in the life of a container.
type Event struct {
	Type     cri.ContainerEventType
	Snapshot *Snapshot
}

// events sends events to the subscribers. The events of a container are always in the
// order created, started, stopped, deleted. The zero value is ready to use.
type events struct {
	out     fanout.Fanout[Event]
	pending map[string]pendingEvents // by container id; only the functions that Fanout.Send calls use it
}

// pendingEvents are the events that a running operation is about to send. A process can
// exit so soon that the exit is seen before the operation has sent its event.
type pendingEvents struct{ created, started bool }

// Subscribe calls fn for each event from now on until cancel is called. fn must not
// block, and must not subscribe or cancel.
func (m *Manager) Subscribe(fn func(Event)) (cancel func()) { return m.events.out.Subscribe(fn) }

// expectCreate announces the created event. The caller calls it before the creation has
// side effects, and sends the event or calls forget afterwards.
func (e *events) expectCreate(id string) { e.expect(id, func(p *pendingEvents) { p.created = true }) }

// expectStart announces the started event. The caller calls it before the start.
func (e *events) expectStart(id string) { e.expect(id, func(p *pendingEvents) { p.started = true }) }

// forget withdraws the announcements of a creation that failed.
func (e *events) forget(id string) { e.expect(id, func(p *pendingEvents) { *p = pendingEvents{} }) }

func (e *events) expect(id string, change func(*pendingEvents)) {
	e.out.Send(func() []Event {
		p := e.pending[id]
		change(&p)
		e.setPending(id, p)
		return nil
	})
}

func (e *events) setPending(id string, p pendingEvents) {
	if p == (pendingEvents{}) {
		delete(e.pending, id)
		return
	}
	if e.pending == nil {
		e.pending = make(map[string]pendingEvents)
	}
	e.pending[id] = p
}

func (e *events) send(t cri.ContainerEventType, s *Snapshot) {
	e.out.Send(func() []Event { return e.inOrder(Event{t, s}) })
}

// inOrder returns the events to send for an event. Before a stopped event it inserts
// the events that are still pending, and drops them when their operation sends them.
func (e *events) inOrder(event Event) (out []Event) {
	s := event.Snapshot
	pending := e.pending[s.ID]
	send, next := true, pendingEvents{}
	switch event.Type {
	case cri.ContainerEventType_CONTAINER_CREATED_EVENT:
		send, next = pending.created, pendingEvents{started: pending.started}
	case cri.ContainerEventType_CONTAINER_STARTED_EVENT:
		send, next = pending.started, pendingEvents{created: pending.created}
	case cri.ContainerEventType_CONTAINER_STOPPED_EVENT:
		if pending.created {
			out = append(out, Event{cri.ContainerEventType_CONTAINER_CREATED_EVENT, s})
		}
		if pending.started && s.Reason != ReasonContainerCannotRun {
			out = append(out, Event{cri.ContainerEventType_CONTAINER_STARTED_EVENT, s})
		}
	}
	e.setPending(s.ID, next)
	if !send {
		return nil
	}
	return append(out, event)
}
