package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/metadata"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/sandbox"
)

// eventBacklog is how many events may wait for one client. It holds the end of
// some hundred pods at once; a client further behind has to list anew anyway.
const eventBacklog = 4096

// event is what happened to a container, or to a pod sandbox under its own id.
type event struct {
	kind      cri.ContainerEventType
	id, podID string
	pod       *sandbox.Pod // as it was then; shown when it has gone meanwhile
	at        time.Time
}

// backlog is the bounded queue of one client.
type backlog struct {
	mu      sync.Mutex // guards closing; keeps the times in order
	closed  bool
	waiting chan event
}

// put never waits. The queue ends with the first event that it cannot take.
func (b *backlog) put(e event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	e.at = time.Now()
	select {
	case b.waiting <- e:
	default:
		b.closed = true
		close(b.waiting)
	}
}

// GetContainerEvents tells of containers and pod sandboxes from now on, until
// the client leaves or falls too far behind. The header is sent once it listens.
func (s *Server) GetContainerEvents(_ *cri.GetEventsRequest, out cri.RuntimeService_GetContainerEventsServer) error {
	b := &backlog{waiting: make(chan event, eventBacklog)}
	defer s.cfg.Pods.Subscribe(func(e sandbox.Event) {
		b.put(event{kind: e.Type, id: e.Pod.ID, podID: e.Pod.ID, pod: e.Pod})
	})()
	defer s.cfg.Containers.Subscribe(func(e container.Event) {
		pod, _ := s.cfg.Pods.Get(e.Snapshot.PodID) // a pod outlives its containers
		b.put(event{kind: e.Type, id: e.Snapshot.ID, podID: e.Snapshot.PodID, pod: pod})
	})()
	if err := out.SendHeader(metadata.MD{}); err != nil {
		return err
	}
	for {
		e, err := s.nextEvent(out.Context(), b)
		if err != nil {
			return err
		}
		if err := out.Send(s.eventMessage(e)); err != nil {
			return err
		}
	}
}

func (s *Server) nextEvent(ctx context.Context, b *backlog) (event, error) {
	select {
	case e, ok := <-b.waiting:
		if !ok {
			return event{}, fmt.Errorf("the client is %d events behind: list anew and subscribe again: %w", eventBacklog, errdefs.ErrResourceExhausted)
		}
		return e, nil
	case <-ctx.Done():
		return event{}, ctx.Err()
	case <-s.ending:
		return event{}, fmt.Errorf("the daemon ends: %w", errdefs.ErrUnavailable)
	}
}

// eventMessage has the states of when it is sent, which may be newer than the
// event: the kubelet replaces what it knows of the pod by them.
func (s *Server) eventMessage(e event) *cri.ContainerEventResponse {
	m := &cri.ContainerEventResponse{ContainerId: e.id, ContainerEventType: e.kind, CreatedAt: e.at.UnixNano()}
	pod := e.pod
	if now, err := s.cfg.Pods.Get(e.podID); err == nil {
		pod = now
	}
	// The kubelet leaves out an event without a pod.
	if pod != nil {
		m.PodSandboxStatus = podStatus(pod)
	}
	for _, c := range s.cfg.Containers.List() {
		if c.PodID == e.podID {
			m.ContainersStatuses = append(m.ContainersStatuses, s.containerStatus(c))
		}
	}
	slices.SortFunc(m.ContainersStatuses, func(a, b *cri.ContainerStatus) int { return cmp.Compare(a.GetCreatedAt(), b.GetCreatedAt()) })
	return m
}
