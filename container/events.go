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

// events hands on what happens, a container's start always before its end. The
// zero value is ready.
type events struct {
	out      fanout.Fanout[Event]
	starting map[string]bool // ids whose start is not told yet; for choose alone
}

// Subscribe calls fn for each event from now on until cancel is called. fn must
// not block and must not subscribe or cancel itself.
func (m *Manager) Subscribe(fn func(Event)) (cancel func()) { return m.events.out.Subscribe(fn) }

// expectStart comes before the start, and the event after it: a process that is
// fast has ended in between.
func (e *events) expectStart(id string) {
	e.out.Send(func() []Event {
		if e.starting == nil {
			e.starting = make(map[string]bool)
		}
		e.starting[id] = true
		return nil
	})
}

func (e *events) send(t cri.ContainerEventType, s *Snapshot) {
	e.out.Send(func() []Event { return e.choose(Event{t, s}) })
}

func (e *events) choose(event Event) []Event {
	s := event.Snapshot
	untold := e.starting[s.ID]
	delete(e.starting, s.ID)
	switch {
	case event.Type == cri.ContainerEventType_CONTAINER_STARTED_EVENT && !untold:
		return nil // told with its end
	case event.Type == cri.ContainerEventType_CONTAINER_STOPPED_EVENT && untold && s.Reason != ReasonContainerCannotRun:
		return []Event{{cri.ContainerEventType_CONTAINER_STARTED_EVENT, s}, event}
	}
	return []Event{event}
}
