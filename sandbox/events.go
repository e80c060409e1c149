package sandbox

import cri "k8s.io/cri-api/pkg/apis/runtime/v1"

// Event tells of one step in a pod sandbox's life. It is named as a container's
// would be: the kubelet takes the sandbox for one.
type Event struct {
	Type cri.ContainerEventType
	Pod  *Pod // as it is then; as it last was when it is deleted
}

// Subscribe calls fn for each event from now on until cancel is called. fn must
// not block and must not subscribe or cancel itself.
func (m *Manager) Subscribe(fn func(Event)) (cancel func()) { return m.events.Subscribe(fn) }

// announce tells what follows from two pictures of one pod, nil where it cannot
// be seen. A pod's operation lock keeps its pictures in order.
func (m *Manager) announce(before, after *Pod) {
	m.events.Send(func() []Event { return steps(before, after) })
}

func steps(before, after *Pod) []Event {
	var out []Event
	add := func(t cri.ContainerEventType, p *Pod) { out = append(out, Event{t, p}) }
	if before == nil && after == nil {
		return nil
	}
	if before == nil {
		add(cri.ContainerEventType_CONTAINER_CREATED_EVENT, after)
		if after.Ready {
			add(cri.ContainerEventType_CONTAINER_STARTED_EVENT, after)
		}
		return out
	}
	last := after
	if after == nil {
		gone := *before
		gone.Ready = false
		last = &gone
	}
	if before.Ready && !last.Ready {
		add(cri.ContainerEventType_CONTAINER_STOPPED_EVENT, last)
	}
	if after == nil {
		add(cri.ContainerEventType_CONTAINER_DELETED_EVENT, last)
	}
	return out
}
