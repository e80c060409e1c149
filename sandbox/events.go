package sandbox

import cri "k8s.io/cri-api/pkg/apis/runtime/v1"

// Event is a change in the life cycle of a pod sandbox. It has the type of a container event, because the kubelet treats
// the pod sandbox as a container.
type Event struct {
	Type cri.ContainerEventType
	Pod  *Pod // after the change; for a deleted pod, its last state
}

// Subscribe calls fn for each event until cancel is called. fn must not block, and must not call Subscribe or cancel.
func (m *Manager) Subscribe(fn func(Event)) (cancel func()) { return m.events.Subscribe(fn) }

// sendEvents sends the events between two snapshots of one pod; nil for a pod that is not visible. The operation lock of
// the pod keeps the events in order.
func (m *Manager) sendEvents(before, after *Pod) {
	m.events.Send(func() []Event { return eventsBetween(before, after) })
}

func eventsBetween(before, after *Pod) []Event {
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
		deleted := *before
		deleted.Ready = false
		last = &deleted
	}
	if before.Ready && !last.Ready {
		add(cri.ContainerEventType_CONTAINER_STOPPED_EVENT, last)
	}
	if after == nil {
		add(cri.ContainerEventType_CONTAINER_DELETED_EVENT, last)
	}
	return out
}
