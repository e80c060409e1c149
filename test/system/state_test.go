package system

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What is asked of a container in the wrong state is a failed precondition:
// the client need not ask again before the state has changed.
func TestContainerRPCsInEachState(t *testing.T) {
	n := newNode(t, "states", 93)
	p := n.runPod(t, podConfig("states"))
	of := map[string]string{
		"created": n.create(t, p, containerConfig(p, "created", busybox, "sleep", "1000")),
		"running": n.run(t, p, "running", "sleep", "1000"),
		"exited":  n.run(t, p, "exited", "true"),
	}
	n.exited(t, of["exited"])
	const wrong = codes.FailedPrecondition
	for _, tc := range []struct {
		rpc                      string
		created, running, exited codes.Code
		call                     func(ctx context.Context, id string) error
	}{
		{"ContainerStatus", 0, 0, 0, func(ctx context.Context, id string) error {
			_, err := n.rt.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id, Verbose: true})
			return err
		}},
		{"ContainerStats", 0, 0, 0, func(ctx context.Context, id string) error {
			_, err := n.rt.ContainerStats(ctx, &cri.ContainerStatsRequest{ContainerId: id})
			return err
		}},
		{"ExecSync", wrong, 0, wrong, func(ctx context.Context, id string) error {
			_, err := n.rt.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: id, Cmd: []string{"true"}})
			return err
		}},
		{"Exec", wrong, 0, wrong, func(ctx context.Context, id string) error {
			_, err := n.rt.Exec(ctx, &cri.ExecRequest{ContainerId: id, Cmd: []string{"true"}, Stdout: true})
			return err
		}},
		{"Attach", wrong, 0, wrong, func(ctx context.Context, id string) error {
			_, err := n.rt.Attach(ctx, &cri.AttachRequest{ContainerId: id, Stdout: true})
			return err
		}},
		{"ReopenContainerLog", 0, 0, wrong, func(ctx context.Context, id string) error {
			_, err := n.rt.ReopenContainerLog(ctx, &cri.ReopenContainerLogRequest{ContainerId: id})
			return err
		}},
		{"UpdateContainerResources", 0, 0, wrong, func(ctx context.Context, id string) error {
			_, err := n.rt.UpdateContainerResources(ctx, &cri.UpdateContainerResourcesRequest{ContainerId: id, Linux: &cri.LinuxContainerResources{CpuShares: 200}})
			return err
		}},
		// The last ones change the state.
		{"StartContainer", 0, wrong, wrong, func(ctx context.Context, id string) error {
			_, err := n.rt.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: id})
			return err
		}},
		{"StopContainer", 0, 0, 0, func(ctx context.Context, id string) error {
			_, err := n.rt.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: id})
			return err
		}},
		{"RemoveContainer", 0, 0, 0, func(ctx context.Context, id string) error {
			_, err := n.rt.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: id})
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

// A created container that was never started is stopped, one that runs is
// removed, and both may be asked for twice.
func TestStopAndRemoveInEachState(t *testing.T) {
	n := newNode(t, "ends", 94)
	p := n.runPod(t, podConfig("ends"))
	created := n.create(t, p, containerConfig(p, "created", busybox, "sleep", "1000"))
	running := n.run(t, p, "running", "sleep", "1000")
	for range 2 {
		if _, err := n.rt.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: created, Timeout: 1000}); err != nil {
			t.Errorf("stop a created container: %v", err)
		}
		if _, err := n.rt.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: running}); err != nil {
			t.Errorf("remove a running container: %v", err)
		}
	}
	if s := n.status(t, created); s.GetState() != cri.ContainerState_CONTAINER_EXITED || s.GetStartedAt() != 0 || s.GetFinishedAt() == 0 {
		t.Errorf("a created container that was stopped is %v", s)
	}
	for range 2 {
		if _, err := n.rt.RemovePodSandbox(t.Context(), &cri.RemovePodSandboxRequest{PodSandboxId: p.id}); err != nil {
			t.Errorf("remove a ready pod: %v", err)
		}
	}
}

func TestPodRPCsOnAStoppedPod(t *testing.T) {
	n := newNode(t, "stopped", 95)
	p := n.runPod(t, podConfig("stopped"))
	for range 2 {
		if _, err := n.rt.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: p.id}); err != nil {
			t.Fatal(err)
		}
	}
	for rpc, tc := range map[string]struct {
		want codes.Code
		call func(ctx context.Context) error
	}{
		"PodSandboxStatus": {codes.OK, func(ctx context.Context) error {
			_, err := n.rt.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: p.id, Verbose: true})
			return err
		}},
		"PodSandboxStats": {codes.OK, func(ctx context.Context) error {
			_, err := n.rt.PodSandboxStats(ctx, &cri.PodSandboxStatsRequest{PodSandboxId: p.id})
			return err
		}},
		"CreateContainer": {codes.FailedPrecondition, func(ctx context.Context) error {
			_, err := n.rt.CreateContainer(ctx, &cri.CreateContainerRequest{
				PodSandboxId: p.id, Config: containerConfig(p, "late", busybox, "true"), SandboxConfig: p.config,
			})
			return err
		}},
		"PortForward": {codes.FailedPrecondition, func(ctx context.Context) error {
			_, err := n.rt.PortForward(ctx, &cri.PortForwardRequest{PodSandboxId: p.id, Port: []int32{80}})
			return err
		}},
		"UpdatePodSandboxResources": {codes.FailedPrecondition, func(ctx context.Context) error {
			_, err := n.rt.UpdatePodSandboxResources(ctx, &cri.UpdatePodSandboxResourcesRequest{PodSandboxId: p.id, Resources: &cri.LinuxContainerResources{CpuShares: 200}})
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
