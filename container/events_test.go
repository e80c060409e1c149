package container

import (
	"slices"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestEventsOfAStartAndAnEnd(t *testing.T) {
	const (
		started = cri.ContainerEventType_CONTAINER_STARTED_EVENT
		stopped = cri.ContainerEventType_CONTAINER_STOPPED_EVENT
		deleted = cri.ContainerEventType_CONTAINER_DELETED_EVENT
	)
	for name, tc := range map[string]struct {
		expect bool
		reason string
		sent   []cri.ContainerEventType
		want   []cri.ContainerEventType
	}{
		"in order":              {true, ReasonCompleted, []cri.ContainerEventType{started, stopped, deleted}, []cri.ContainerEventType{started, stopped, deleted}},
		"the end was faster":    {true, ReasonCompleted, []cri.ContainerEventType{stopped, started, deleted}, []cri.ContainerEventType{started, stopped, deleted}},
		"it could not be run":   {true, ReasonContainerCannotRun, []cri.ContainerEventType{stopped, deleted}, []cri.ContainerEventType{stopped, deleted}},
		"started by one before": {false, ReasonError, []cri.ContainerEventType{stopped, deleted}, []cri.ContainerEventType{stopped, deleted}},
	} {
		m := &Manager{}
		var got []cri.ContainerEventType
		cancel := m.Subscribe(func(e Event) { got = append(got, e.Type) })
		if tc.expect {
			m.events.expectStart("x")
		}
		for _, typ := range tc.sent {
			m.events.send(typ, &Snapshot{ID: "x", Reason: tc.reason})
		}
		cancel()
		m.events.send(deleted, &Snapshot{ID: "x"})
		if !slices.Equal(got, tc.want) || len(m.events.starting) != 0 {
			t.Errorf("%s: %v, %v", name, got, m.events.starting)
		}
	}
}
