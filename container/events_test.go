package container

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/internal/patience"
	"github.com/criserver/criserver/internal/proc"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestEventsAreInOrder(t *testing.T) {
	const (
		created = cri.ContainerEventType_CONTAINER_CREATED_EVENT
		started = cri.ContainerEventType_CONTAINER_STARTED_EVENT
		stopped = cri.ContainerEventType_CONTAINER_STOPPED_EVENT
		deleted = cri.ContainerEventType_CONTAINER_DELETED_EVENT
	)
	for name, tc := range map[string]struct {
		create, start bool
		reason        string
		sent, want    []cri.ContainerEventType
	}{
		"in order": {
			true, true, ReasonCompleted,
			[]cri.ContainerEventType{created, started, stopped, deleted},
			[]cri.ContainerEventType{created, started, stopped, deleted},
		},
		"exit before the end of the start": {
			false, true, ReasonCompleted,
			[]cri.ContainerEventType{stopped, started, deleted},
			[]cri.ContainerEventType{started, stopped, deleted},
		},
		"exit before the end of the creation": {
			true, false, ReasonError,
			[]cri.ContainerEventType{stopped, created, deleted},
			[]cri.ContainerEventType{created, stopped, deleted},
		},
		"start fails": {
			false, true, ReasonContainerCannotRun,
			[]cri.ContainerEventType{stopped, deleted},
			[]cri.ContainerEventType{stopped, deleted},
		},
		"started by an earlier daemon": {
			false, false, ReasonError,
			[]cri.ContainerEventType{stopped, deleted},
			[]cri.ContainerEventType{stopped, deleted},
		},
	} {
		m := &Manager{}
		var got []cri.ContainerEventType
		cancel := m.Subscribe(func(e Event) { got = append(got, e.Type) })
		if tc.create {
			m.events.expectCreate("x")
		}
		for _, typ := range tc.sent {
			if tc.start && (typ == started || typ == stopped) {
				m.events.expectStart("x")
				tc.start = false
			}
			m.events.send(typ, &Snapshot{ID: "x", Reason: tc.reason})
		}
		cancel()
		m.events.send(deleted, &Snapshot{ID: "x"})
		if !slices.Equal(got, tc.want) || len(m.events.pending) != 0 {
			t.Errorf("%s: %v, %v", name, got, m.events.pending)
		}
	}
}

// TestEventsOfExitDuringCreation kills the process of a container during the creation.
// The CREATED event must still come before the STOPPED event.
func TestEventsOfExitDuringCreation(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager(func(c *Config) { c.Monitors = killingMonitors{c.Monitors} })
	got := make(chan Event, 10)
	defer m.Subscribe(func(e Event) { got <- e })()
	id := b.create(m, shell("short", "exit 0"))
	b.waitExit(m, id)
	for _, want := range []cri.ContainerEventType{cri.ContainerEventType_CONTAINER_CREATED_EVENT, cri.ContainerEventType_CONTAINER_STOPPED_EVENT} {
		select {
		case e := <-got:
			if e.Type != want || e.Snapshot.ID != id {
				t.Errorf("event %s, want %s", e.Type, want)
			}
		case <-time.After(patience.For(20 * time.Second)):
			t.Fatalf("no event, want %s", want)
		}
	}
}

// killingMonitors kills the first process of each new container. Create returns when the
// monitor has written the exit record and has exited.
type killingMonitors struct{ Monitors }

func (k killingMonitors) Create(ctx context.Context, s conmon.Spec) (conmon.Started, proc.Ref, error) {
	started, monitor, err := k.Monitors.Create(ctx, s)
	if err != nil {
		return started, monitor, err
	}
	if err := started.Init.Signal(unix.SIGKILL); err != nil {
		return started, monitor, err
	}
	for end := patience.Until(20 * time.Second); monitor.Alive() && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	return started, monitor, nil
}
