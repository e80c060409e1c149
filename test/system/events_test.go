package system

import (
	"slices"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestEventsOfPodLifecycle(t *testing.T) {
	n := newNode(t, "events", 73)
	stream, err := n.RuntimeService.GetContainerEvents(t.Context(), &cri.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil {
		t.Fatalf("read the header of the event stream: %v", err)
	}
	p := n.RunPod(t, podConfig("heard"))
	id := n.run(t, p, "quick", "true") // the exit may come before the answer to StartContainer
	n.WaitExited(t, id)
	n.RemovePod(t, p.ID)

	const (
		created = cri.ContainerEventType_CONTAINER_CREATED_EVENT
		started = cri.ContainerEventType_CONTAINER_STARTED_EVENT
		stopped = cri.ContainerEventType_CONTAINER_STOPPED_EVENT
		deleted = cri.ContainerEventType_CONTAINER_DELETED_EVENT
	)
	want := []cri.ContainerEventType{created, started, stopped, deleted}
	received := make(map[string][]cri.ContainerEventType)
	last := int64(0)
	for len(received[p.ID]) < len(want) {
		e, err := stream.Recv()
		if err != nil {
			t.Fatalf("receive an event: %v", err)
		}
		received[e.GetContainerId()] = append(received[e.GetContainerId()], e.GetContainerEventType())
		if e.GetPodSandboxStatus().GetMetadata().GetUid() != p.Config.GetMetadata().GetUid() {
			t.Errorf("event: got %v, want one with the pod", e)
		}
		if e.GetCreatedAt() < last {
			t.Errorf("event: got %v, want created_at of at least %d", e, last)
		}
		last = e.GetCreatedAt()
		if e.GetContainerId() == p.ID && e.GetContainerEventType() == deleted {
			if e.GetPodSandboxStatus().GetState() != cri.PodSandboxState_SANDBOX_NOTREADY || len(e.GetContainersStatuses()) != 0 {
				t.Errorf("last event of the pod: got %v, want it not ready and without containers", e)
			}
		}
	}
	if len(received) != 2 || !slices.Equal(received[p.ID], want) || !slices.Equal(received[id], want) {
		t.Errorf("events: got %v, want %v of the pod and of the container", received, want)
	}
}

func TestExitEventHasExitCode(t *testing.T) {
	n := newNode(t, "endevent", 74)
	p := n.RunPod(t, podConfig("p"))
	stream, err := n.RuntimeService.GetContainerEvents(t.Context(), &cri.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil {
		t.Fatalf("read the header of the event stream: %v", err)
	}
	id := n.run(t, p, "c", "sh", "-c", "exit 7")
	for {
		e, err := stream.Recv()
		if err != nil {
			t.Fatalf("receive an event: %v", err)
		}
		if e.GetContainerEventType() != cri.ContainerEventType_CONTAINER_STOPPED_EVENT {
			continue
		}
		s := e.GetContainersStatuses()
		if len(s) != 1 || s[0].GetId() != id || s[0].GetExitCode() != 7 || e.GetPodSandboxStatus().GetState() != cri.PodSandboxState_SANDBOX_READY {
			t.Errorf("event of the exit: got %v, want exit code 7 and a ready pod", e)
		}
		return
	}
}
