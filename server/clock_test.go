package server

import (
	"math"
	"sync"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/sandbox"
)

func TestClockNeverGoesBack(t *testing.T) {
	var c clock
	c.last.Store(time.Now().Add(time.Hour).UnixNano()) // as if the clock of the host had been set back
	last := c.last.Load()
	var mu sync.Mutex
	seen := map[int64]bool{last: true}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			before := int64(math.MinInt64)
			for range 100 {
				now := c.now()
				if now <= before || now <= last {
					t.Errorf("got %d after %d and %d", now, before, last)
				}
				before = now
				mu.Lock()
				if seen[now] {
					t.Errorf("got %d twice", now)
				}
				seen[now] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	c.last.Store(0)
	if before, now := time.Now().UnixNano(), c.now(); now < before {
		t.Errorf("got %d, before the time of the host %d", now, before)
	}
}

// TestPodStatusTimestamp checks that the timestamps of events and of PodSandboxStatus
// have the order in which the client received them, and that PodSandboxStatus has the
// states of the containers of the pod, newest first.
func TestPodStatusTimestamp(t *testing.T) {
	pods := &eventPods{fakePods: fakePods{pods: []*sandbox.Pod{{ID: "p", Ready: true, Config: &cri.PodSandboxConfig{}}}}}
	snap := func(id, pod string, created int64) *container.Snapshot {
		return &container.Snapshot{ID: id, PodID: pod, CreatedAt: time.Unix(created, 0), Config: &cri.ContainerConfig{}}
	}
	containers := &eventContainers{fakeContainers: fakeContainers{list: []*container.Snapshot{snap("c1", "p", 1), snap("x", "other", 1), snap("c2", "p", 2)}}}
	client := serve(t, Config{Pods: pods, Containers: containers, Images: &fakeImages{}})
	stream := subscribe(t.Context(), t, client)
	last := time.Now().Add(-time.Second).UnixNano()
	for range 20 {
		containers.out.Send(func() []container.Event {
			return []container.Event{{Type: cri.ContainerEventType_CONTAINER_STARTED_EVENT, Snapshot: containers.list[0]}}
		})
		e, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if e.GetCreatedAt() <= last {
			t.Fatalf("event has timestamp %d, want more than %d", e.GetCreatedAt(), last)
		}
		s, err := client.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: "p"})
		if err != nil {
			t.Fatal(err)
		}
		if s.GetTimestamp() <= e.GetCreatedAt() {
			t.Fatalf("status has timestamp %d, want more than %d of the event before", s.GetTimestamp(), e.GetCreatedAt())
		}
		last = s.GetTimestamp()
		if c := s.GetContainersStatuses(); len(c) != 2 || c[0].GetId() != "c2" || c[1].GetId() != "c1" {
			t.Fatalf("status has the containers %v, want c2 and c1", c)
		}
	}
}
