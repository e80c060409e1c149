package server

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/internal/fanout"
	"github.com/criserver/criserver/sandbox"
)

// eventPods is a Pods that sends events.
type eventPods struct {
	fakePods
	out fanout.Fanout[sandbox.Event]
}

func (p *eventPods) Subscribe(fn func(sandbox.Event)) func() { return p.out.Subscribe(fn) }

// eventContainers is a Containers that sends events.
type eventContainers struct {
	fakeContainers
	out fanout.Fanout[container.Event]
}

func (c *eventContainers) Subscribe(fn func(container.Event)) func() { return c.out.Subscribe(fn) }

// subscribe returns a stream of events that misses no event from now on.
func subscribe(ctx context.Context, t *testing.T, c cri.RuntimeServiceClient) cri.RuntimeService_GetContainerEventsClient {
	t.Helper()
	stream, err := c.GetContainerEvents(ctx, &cri.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil {
		t.Fatal(err)
	}
	return stream
}

func TestEventContainsPodAndContainers(t *testing.T) {
	pod := &sandbox.Pod{ID: "p", Ready: true, Config: &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Uid: "u"}}}
	snap := func(id, pod string, created int64) *container.Snapshot {
		return &container.Snapshot{ID: id, PodID: pod, CreatedAt: time.Unix(created, 0), Config: &cri.ContainerConfig{}}
	}
	pods := &eventPods{fakePods: fakePods{pods: []*sandbox.Pod{pod}}}
	containers := &eventContainers{fakeContainers: fakeContainers{list: []*container.Snapshot{snap("c1", "p", 1), snap("x", "other", 1), snap("c2", "p", 2)}}}
	stream := subscribe(t.Context(), t, serve(t, Config{Pods: pods, Containers: containers, Images: &fakeImages{}}))

	containers.out.Send(func() []container.Event {
		return []container.Event{{Type: cri.ContainerEventType_CONTAINER_STARTED_EVENT, Snapshot: containers.list[2]}}
	})
	e, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	ids := ""
	for _, c := range e.GetContainersStatuses() {
		ids += c.GetId()
	}
	if e.GetContainerId() != "c2" || e.GetCreatedAt() == 0 || e.GetPodSandboxStatus().GetMetadata().GetUid() != "u" || ids != "c2c1" {
		t.Errorf("event of a container: %v", e)
	}

	removed := &sandbox.Pod{ID: "removed", Config: pod.Config}
	pods.out.Send(func() []sandbox.Event {
		return []sandbox.Event{{Type: cri.ContainerEventType_CONTAINER_DELETED_EVENT, Pod: removed}}
	})
	if e, err = stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if e.GetContainerId() != "removed" || e.GetPodSandboxStatus().GetState() != cri.PodSandboxState_SANDBOX_NOTREADY || len(e.GetContainersStatuses()) != 0 {
		t.Errorf("event of a removed pod: %v", e)
	}
}

func TestSlowEventClient(t *testing.T) {
	containers := &eventContainers{}
	c := serve(t, Config{Pods: &eventPods{}, Containers: containers, Images: &fakeImages{}})
	slow, fast := subscribe(t.Context(), t, c), subscribe(t.Context(), t, c)
	send := func() {
		containers.out.Send(func() []container.Event {
			return []container.Event{{Snapshot: &container.Snapshot{ID: fmt.Sprintf("%064d", 1), PodID: "p"}}}
		})
	}
	for range 2 * maxQueuedEvents {
		send()
		if _, err := fast.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	// The transport buffers about 64 KiB in addition to the queue.
	for range 2 * maxQueuedEvents {
		send()
	}
	for {
		_, err := slow.Recv()
		if err == nil {
			continue
		}
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("slow client: %v, want ResourceExhausted", err)
		}
		return
	}
}

func TestEventStreamEndsOnStop(t *testing.T) {
	var stream cri.RuntimeService_GetContainerEventsClient
	received := make(chan error, 1)
	t.Run("serve", func(t *testing.T) {
		c := serve(t, Config{Pods: &eventPods{}, Containers: &eventContainers{}})
		stream = subscribe(context.Background(), t, c)
		go func() { _, err := stream.Recv(); received <- err }()
	})
	if err := <-received; status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "daemon is stopping") {
		t.Errorf("got %v, want Unavailable", err)
	}
}
