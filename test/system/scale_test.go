package system

import (
	"context"
	"fmt"
	"sync"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// parallel calls fn with 0 to n-1, width calls at a time.
func parallel(n, width int, fn func(i int)) {
	var wg sync.WaitGroup
	gate := make(chan struct{}, width)
	for i := range n {
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			fn(i)
		})
	}
	wg.Wait()
}

// bring creates a pod with a sleeping container. Repeated calls return the same pod and
// container.
func (n *node) bring(ctx context.Context, i int) (podID, containerID string, err error) {
	p := &pod{Config: podConfig(fmt.Sprintf("p%d", i))}
	r, err := n.RuntimeService.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: p.Config})
	if err != nil {
		return "", "", fmt.Errorf("run pod %d: %w", i, err)
	}
	p.ID = r.GetPodSandboxId()
	c, err := n.RuntimeService.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: containerConfig(p, "c", busybox, "sleep", "1000"), SandboxConfig: p.Config})
	if err != nil {
		return p.ID, "", fmt.Errorf("create container %d: %w", i, err)
	}
	if _, err = n.RuntimeService.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: c.GetContainerId()}); err != nil {
		err = fmt.Errorf("start container %d: %w", i, err)
	}
	return p.ID, c.GetContainerId(), err
}

func (n *node) running(t *testing.T) (pods, containers int) {
	t.Helper()
	ps, err := n.RuntimeService.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{State: &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY}}})
	if err != nil {
		t.Fatal(err)
	}
	cs, err := n.RuntimeService.ListContainers(t.Context(), &cri.ListContainersRequest{Filter: &cri.ContainerFilter{State: &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING}}})
	if err != nil {
		t.Fatal(err)
	}
	return len(ps.GetItems()), len(cs.GetContainers())
}

func TestHundredPodsLeakNothing(t *testing.T) {
	n := newNode(t, "hundred", 63)
	const count = 100
	ids := make([]string, count)
	parallel(count, 8, func(i int) {
		var err error
		if ids[i], _, err = n.bring(t.Context(), i); err != nil {
			t.Errorf("bring up pod %d: %v", i, err)
		}
	})
	if p, c := n.running(t); p != count || c != count {
		t.Errorf("running after the creation: got %d pods and %d containers, want %d each", p, c, count)
	}
	parallel(count, 8, func(i int) {
		if ids[i] == "" {
			return
		}
		if err := n.StopAndRemovePod(t.Context(), ids[i]); err != nil {
			t.Errorf("remove pod %s: %v", ids[i], err)
		}
	})
}
