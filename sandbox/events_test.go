package sandbox

import (
	"slices"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestEventsOfAPodsLife(t *testing.T) {
	b := newBed(t, "")
	m := b.start()
	var got []Event
	cancel := m.Subscribe(func(e Event) { got = append(got, e) })
	p := mustRun(t, m, hostPod("h"))
	mustRemove(t, m, p.ID)
	cancel()
	mustRemove(t, m, mustRun(t, m, hostPod("unheard")).ID)
	var types []cri.ContainerEventType
	for _, e := range got {
		types = append(types, e.Type)
		stopped := e.Type == cri.ContainerEventType_CONTAINER_STOPPED_EVENT || e.Type == cri.ContainerEventType_CONTAINER_DELETED_EVENT
		if e.Pod.ID != p.ID || e.Pod.Ready == stopped {
			t.Errorf("%s with the pod %+v", e.Type, e.Pod)
		}
	}
	want := []cri.ContainerEventType{
		cri.ContainerEventType_CONTAINER_CREATED_EVENT, cri.ContainerEventType_CONTAINER_STARTED_EVENT,
		cri.ContainerEventType_CONTAINER_STOPPED_EVENT, cri.ContainerEventType_CONTAINER_DELETED_EVENT,
	}
	if !slices.Equal(types, want) {
		t.Errorf("events: %v", types)
	}
}

func TestStepsOfWhatCannotBeSeen(t *testing.T) {
	if s := eventsBetween(nil, nil); len(s) != 0 {
		t.Errorf("hidden: %v", s)
	}
	if s := eventsBetween(nil, &Pod{}); len(s) != 1 {
		t.Errorf("remains of a pod that could not be made: %v", s)
	}
	if s := eventsBetween(&Pod{Ready: true}, nil); len(s) != 2 {
		t.Errorf("a ready pod that is gone: %v", s)
	}
}
