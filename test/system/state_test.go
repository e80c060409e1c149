package system

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestContainerRPCsInEachState checks that requests for a container in the wrong state
// fail with FailedPrecondition.
func TestContainerRPCsInEachState(t *testing.T) {
	n := newNode(t, "states", 93)
	p := n.RunPod(t, podConfig("states"))
	of := map[string]string{
		"created": n.CreateContainer(t, p, containerConfig(p, "created", busybox, "sleep", "1000")),
		"running": n.run(t, p, "running", "sleep", "1000"),
		"exited":  n.run(t, p, "exited", "true"),
	}
	n.WaitExited(t, of["exited"])
	const wrong = codes.FailedPrecondition
	for _, tc := range []struct {
		rpc                      string
		created, running, exited codes.Code
		call                     func(ctx context.Context, id string) error
	}{
		{"ContainerStatus", 0, 0, 0, func(ctx context.Context, id string) error {
			_, err := n.RuntimeService.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id, Verbose: true})
			return err
		}},
		{"ContainerStats", 0, 0, 0, func(ctx context.Context, id string) error {
			_, err := n.RuntimeService.ContainerStats(ctx, &cri.ContainerStatsRequest{ContainerId: id})
			return err
		}},
		{"ExecSync", wrong, 0, wrong, func(ctx context.Context, id string) error {
			_, err := n.RuntimeService.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: id, Cmd: []string{"true"}})
			return err
		}},
		{"Exec", wrong, 0, wrong, func(ctx context.Context, id string) error {
			_, err := n.RuntimeService.Exec(ctx, &cri.ExecRequest{ContainerId: id, Cmd: []string{"true"}, Stdout: true})
			return err
		}},
		{"Attach", wrong, 0, wrong, func(ctx context.Context, id string) error {
			_, err := n.RuntimeService.Attach(ctx, &cri.AttachRequest{ContainerId: id, Stdout: true})
			return err
		}},
		{"ReopenContainerLog", 0, 0, wrong, func(ctx context.Context, id string) error {
			_, err := n.RuntimeService.ReopenContainerLog(ctx, &cri.ReopenContainerLogRequest{ContainerId: id})
			return err
		}},
		{"UpdateContainerResources", 0, 0, wrong, func(ctx context.Context, id string) error {
			_, err := n.RuntimeService.UpdateContainerResources(ctx, &cri.UpdateContainerResourcesRequest{ContainerId: id, Linux: &cri.LinuxContainerResources{CpuShares: 200}})
			return err
		}},
		// The last requests change the state.
		{"StartContainer", 0, wrong, wrong, func(ctx context.Context, id string) error {
			_, err := n.RuntimeService.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: id})
			return err
		}},
		{"StopContainer", 0, 0, 0, func(ctx context.Context, id string) error {
			_, err := n.RuntimeService.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: id})
			return err
		}},
		{"RemoveContainer", 0, 0, 0, func(ctx context.Context, id string) error {
			_, err := n.RuntimeService.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: id})
			return err
		}},
	} {
		for state, want := range map[string]codes.Code{"created": tc.created, "running": tc.running, "exited": tc.exited} {
			t.Run(tc.rpc+"/"+state, func(t *testing.T) {
				if err := tc.call(t.Context(), of[state]); status.Code(err) != want {
					t.Errorf("want %s, got %v", want, err)
				}
			})
		}
	}
}

// TestStopAndRemoveInEachState stops a container that was never started, removes a running
// one, and repeats both requests.
func TestStopAndRemoveInEachState(t *testing.T) {
	n := newNode(t, "ends", 94)
	p := n.RunPod(t, podConfig("ends"))
	created := n.CreateContainer(t, p, containerConfig(p, "created", busybox, "sleep", "1000"))
	running := n.run(t, p, "running", "sleep", "1000")
	for range 2 {
		if _, err := n.RuntimeService.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: created, Timeout: 1000}); err != nil {
			t.Errorf("stop a created container: got error %v, want none", err)
		}
		if _, err := n.RuntimeService.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: running}); err != nil {
			t.Errorf("remove a running container: got error %v, want none", err)
		}
	}
	if s := n.ContainerStatus(t, created); s.GetState() != cri.ContainerState_CONTAINER_EXITED || s.GetStartedAt() != 0 || s.GetFinishedAt() == 0 {
		t.Errorf("stopped container that was never started: got %v, want exited without a start and with an end", s)
	}
	for range 2 {
		if _, err := n.RuntimeService.RemovePodSandbox(t.Context(), &cri.RemovePodSandboxRequest{PodSandboxId: p.ID}); err != nil {
			t.Errorf("remove a ready pod: got error %v, want none", err)
		}
	}
}

func TestPodRPCsOnAStoppedPod(t *testing.T) {
	n := newNode(t, "stopped", 95)
	p := n.RunPod(t, podConfig("stopped"))
	for range 2 {
		if _, err := n.RuntimeService.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: p.ID}); err != nil {
			t.Fatal(err)
		}
	}
	for rpc, tc := range map[string]struct {
		want codes.Code
		call func(ctx context.Context) error
	}{
		"PodSandboxStatus": {codes.OK, func(ctx context.Context) error {
			_, err := n.RuntimeService.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: p.ID, Verbose: true})
			return err
		}},
		"PodSandboxStats": {codes.OK, func(ctx context.Context) error {
			_, err := n.RuntimeService.PodSandboxStats(ctx, &cri.PodSandboxStatsRequest{PodSandboxId: p.ID})
			return err
		}},
		"CreateContainer": {codes.FailedPrecondition, func(ctx context.Context) error {
			_, err := n.RuntimeService.CreateContainer(ctx, &cri.CreateContainerRequest{
				PodSandboxId: p.ID, Config: containerConfig(p, "late", busybox, "true"), SandboxConfig: p.Config,
			})
			return err
		}},
		"PortForward": {codes.FailedPrecondition, func(ctx context.Context) error {
			_, err := n.RuntimeService.PortForward(ctx, &cri.PortForwardRequest{PodSandboxId: p.ID, Port: []int32{80}})
			return err
		}},
		"UpdatePodSandboxResources": {codes.FailedPrecondition, func(ctx context.Context) error {
			_, err := n.RuntimeService.UpdatePodSandboxResources(ctx, &cri.UpdatePodSandboxResourcesRequest{PodSandboxId: p.ID, Resources: &cri.LinuxContainerResources{CpuShares: 200}})
			return err
		}},
	} {
		t.Run(rpc, func(t *testing.T) {
			if err := tc.call(t.Context()); status.Code(err) != tc.want {
				t.Errorf("want %s, got %v", tc.want, err)
			}
		})
	}
}
