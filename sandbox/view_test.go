package sandbox

import (
	"slices"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestEvents(t *testing.T) {
	b := newBed(t, "")
	m := b.start()
	var got []Event
	cancel := m.Subscribe(func(e Event) { got = append(got, e) })
	p := mustRun(t, m, hostPod("h"))
	mustRemove(t, m, p.ID)
	cancel()
	mustRemove(t, m, mustRun(t, m, hostPod("after-cancel")).ID)
	var types []cri.ContainerEventType
	for _, e := range got {
		types = append(types, e.Type)
		stopped := e.Type == cri.ContainerEventType_CONTAINER_STOPPED_EVENT || e.Type == cri.ContainerEventType_CONTAINER_DELETED_EVENT
		if e.Pod.ID != p.ID || e.Pod.Ready == stopped {
			t.Errorf("event %s has the pod %+v", e.Type, e.Pod)
		}
	}
	want := []cri.ContainerEventType{
		cri.ContainerEventType_CONTAINER_CREATED_EVENT, cri.ContainerEventType_CONTAINER_STARTED_EVENT,
		cri.ContainerEventType_CONTAINER_STOPPED_EVENT, cri.ContainerEventType_CONTAINER_DELETED_EVENT,
	}
	if !slices.Equal(types, want) {
		t.Errorf("got events %v, want %v", types, want)
	}
}

func TestEventsBetween(t *testing.T) {
	if s := eventsBetween(nil, nil); len(s) != 0 {
		t.Errorf("hidden pod: got %v", s)
	}
	if s := eventsBetween(nil, &Pod{}); len(s) != 1 {
		t.Errorf("leftovers of a failed creation: got %v, want one event", s)
	}
	if s := eventsBetween(&Pod{Ready: true}, nil); len(s) != 2 {
		t.Errorf("removal of a ready pod: got %v, want two events", s)
	}
}
