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

type eventPods struct {
	fakePods
	out fanout.Fanout[sandbox.Event]
}

func (p *eventPods) Subscribe(fn func(sandbox.Event)) func() { return p.out.Subscribe(fn) }

type eventContainers struct {
	fakeContainers
	out fanout.Fanout[container.Event]
}

func (c *eventContainers) Subscribe(fn func(container.Event)) func() { return c.out.Subscribe(fn) }

func listen(ctx context.Context, t *testing.T, c cri.RuntimeServiceClient) cri.RuntimeService_GetContainerEventsClient {
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

func TestEventsCarryThePodAndItsContainers(t *testing.T) {
	pod := &sandbox.Pod{ID: "p", Ready: true, Config: &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Uid: "u"}}}
	snap := func(id, pod string, created int64) *container.Snapshot {
		return &container.Snapshot{ID: id, PodID: pod, CreatedAt: time.Unix(created, 0), Config: &cri.ContainerConfig{}}
	}
	pods := &eventPods{fakePods: fakePods{pods: []*sandbox.Pod{pod}}}
	containers := &eventContainers{fakeContainers: fakeContainers{list: []*container.Snapshot{snap("c2", "p", 2), snap("x", "other", 1), snap("c1", "p", 1)}}}
	stream := listen(t.Context(), t, serve(t, Config{Pods: pods, Containers: containers, Images: &fakeImages{}}))

	containers.out.Send(func() []container.Event {
		return []container.Event{{Type: cri.ContainerEventType_CONTAINER_STARTED_EVENT, Snapshot: containers.list[0]}}
	})
	e, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	ids := ""
	for _, c := range e.GetContainersStatuses() {
		ids += c.GetId()
	}
	if e.GetContainerId() != "c2" || e.GetCreatedAt() == 0 || e.GetPodSandboxStatus().GetMetadata().GetUid() != "u" || ids != "c1c2" {
		t.Errorf("event %v", e)
	}

	gone := &sandbox.Pod{ID: "gone", Config: pod.Config}
	pods.out.Send(func() []sandbox.Event {
		return []sandbox.Event{{Type: cri.ContainerEventType_CONTAINER_DELETED_EVENT, Pod: gone}}
	})
	if e, err = stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if e.GetContainerId() != "gone" || e.GetPodSandboxStatus().GetState() != cri.PodSandboxState_SANDBOX_NOTREADY || len(e.GetContainersStatuses()) != 0 {
		t.Errorf("event of a pod that is gone: %v", e)
	}
}

func TestASlowListenerIsEnded(t *testing.T) {
	containers := &eventContainers{}
	c := serve(t, Config{Pods: &eventPods{}, Containers: containers, Images: &fakeImages{}})
	slow, quick := listen(t.Context(), t, c), listen(t.Context(), t, c)
	send := func() {
		containers.out.Send(func() []container.Event {
			return []container.Event{{Snapshot: &container.Snapshot{ID: fmt.Sprintf("%064d", 1), PodID: "p"}}}
		})
	}
	for range 2 * eventBacklog {
		send()
		if _, err := quick.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	// Beyond the queue, the transport takes some 64 KiB for who does not read.
	for range 2 * eventBacklog {
		send()
	}
	for {
		_, err := slow.Recv()
		if err == nil {
			continue
		}
		if status.Code(err) != codes.ResourceExhausted {
			t.Error(err)
		}
		return
	}
}

func TestListenersAreToldOfTheEnd(t *testing.T) {
	var stream cri.RuntimeService_GetContainerEventsClient
	heard := make(chan error, 1)
	t.Run("serve", func(t *testing.T) {
		c := serve(t, Config{Pods: &eventPods{}, Containers: &eventContainers{}})
		stream = listen(context.Background(), t, c)
		go func() { _, err := stream.Recv(); heard <- err }()
	})
	if err := <-heard; status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "the daemon ends") {
		t.Errorf("got %v", err)
	}
}
