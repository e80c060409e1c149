package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/metadata"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/sandbox"
)

// maxQueuedEvents bounds the events in the queue of one client. The queue holds the
// events of several hundred pods that end at the same time. A client that is further
// behind must list the containers again anyway.
const maxQueuedEvents = 4096

// event is an event of a container, or of a pod sandbox under the id of the pod
// sandbox.
type event struct {
	kind      cri.ContainerEventType
	id, podID string
	pod       *sandbox.Pod // at the time of the event, in case it is removed later
	time      int64        // see clock
}

// eventQueue is the bounded queue of one client.
type eventQueue struct {
	clock  *clock
	mu     sync.Mutex // guards closed, and keeps the events in the order of their times
	closed bool
	events chan event // closed when an event did not fit
}

// add adds an event without waiting. If the queue is full, add closes the queue,
// because a client must not miss an event without noticing.
func (q *eventQueue) add(e event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	e.time = q.clock.now()
	select {
	case q.events <- e:
	default:
		q.closed = true
		close(q.events)
	}
}

// GetContainerEvents sends the events of all containers and pod sandboxes from now
// on. It sends the header of the stream as soon as no event can be missed. An event
// carries the status of the pod sandbox and of its containers, as the CRI demands.
//
// Errors: ResourceExhausted if the client falls behind by more than maxQueuedEvents,
// and Unavailable when the daemon stops.
func (s *Server) GetContainerEvents(_ *cri.GetEventsRequest, out cri.RuntimeService_GetContainerEventsServer) error {
	q := &eventQueue{clock: &s.clock, events: make(chan event, maxQueuedEvents)}
	defer s.cfg.Pods.Subscribe(func(e sandbox.Event) {
		q.add(event{kind: e.Type, id: e.Pod.ID, podID: e.Pod.ID, pod: e.Pod})
	})()
	defer s.cfg.Containers.Subscribe(func(e container.Event) {
		pod, _ := s.cfg.Pods.Get(e.Snapshot.PodID) // a pod sandbox is removed after its containers
		q.add(event{kind: e.Type, id: e.Snapshot.ID, podID: e.Snapshot.PodID, pod: pod})
	})()
	if err := out.SendHeader(metadata.MD{}); err != nil {
		return err
	}
	for {
		e, err := s.nextEvent(out.Context(), q)
		if err != nil {
			return err
		}
		if err := out.Send(s.eventMessage(e)); err != nil {
			return err
		}
	}
}

func (s *Server) nextEvent(ctx context.Context, q *eventQueue) (event, error) {
	select {
	case e, ok := <-q.events:
		if !ok {
			return event{}, fmt.Errorf("client is more than %d events behind: list the containers and subscribe again: %w", maxQueuedEvents, errdefs.ErrResourceExhausted)
		}
		return e, nil
	case <-ctx.Done():
		return event{}, ctx.Err()
	case <-s.stopping:
		return event{}, fmt.Errorf("daemon is stopping: %w", errdefs.ErrUnavailable)
	}
}

// eventMessage returns the message for an event. The states are those at the time of
// sending, which can be newer than the event: the kubelet replaces its own view of
// the pod by them.
func (s *Server) eventMessage(e event) *cri.ContainerEventResponse {
	m := &cri.ContainerEventResponse{ContainerId: e.id, ContainerEventType: e.kind, CreatedAt: e.time}
	pod := e.pod
	if current, err := s.cfg.Pods.Get(e.podID); err == nil {
		pod = current
	}
	// The kubelet ignores an event without the status of the pod sandbox.
	if pod != nil {
		m.PodSandboxStatus = podStatus(pod)
	}
	m.ContainersStatuses = s.containerStatuses(e.podID)
	return m
}

// containerStatuses returns the states of the containers of a pod, newest first: a
// kubelet with Evented PLEG takes the first state with the name of a container as the
// state of the latest attempt, and does not sort the states of PodSandboxStatus.
func (s *Server) containerStatuses(podID string) []*cri.ContainerStatus {
	var out []*cri.ContainerStatus
	for _, c := range s.cfg.Containers.List() {
		if c.PodID == podID {
			out = append(out, s.containerStatus(c))
		}
	}
	slices.SortFunc(out, func(a, b *cri.ContainerStatus) int { return cmp.Compare(b.GetCreatedAt(), a.GetCreatedAt()) })
	return out
}
