package server

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/sandbox"
	"github.com/criserver/criserver/server/rpc"
)

func TestMissingFields(t *testing.T) {
	s := New(Config{})
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"pod_sandbox_id": func() error { _, err := s.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{}); return err },
		"config":         func() error { _, err := s.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{}); return err },
		"sandbox_config": func() error {
			_, err := s.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: "x", Config: &cri.ContainerConfig{}})
			return err
		},
		"container_id": func() error { _, err := s.ContainerStatus(ctx, &cri.ContainerStatusRequest{}); return err },
		"cmd":          func() error { _, err := s.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: "x"}); return err },
		"timeout": func() error {
			_, err := s.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: "x", Cmd: []string{"true"}, Timeout: -1})
			return err
		},
		"linux": func() error {
			_, err := s.UpdateContainerResources(ctx, &cri.UpdateContainerResourcesRequest{ContainerId: "x"})
			return err
		},
		"image.image": func() error { _, err := s.PullImage(ctx, &cri.PullImageRequest{}); return err },
	} {
		err := rpc.Error(call())
		if status.Code(err) != codes.InvalidArgument || !strings.HasPrefix(status.Convert(err).Message(), name+" must") {
			t.Errorf("got %v, want InvalidArgument for %s", err, name)
		}
	}
}

func TestStopAndRemoveAreIdempotent(t *testing.T) {
	notFound := fmt.Errorf("no such thing: %w", errdefs.ErrNotFound)
	absent := New(Config{Pods: &fakePods{err: notFound}, Containers: &fakeContainers{err: notFound}, Images: &fakeImages{err: notFound}})
	busy := errors.New("busy")
	failing := New(Config{Pods: &fakePods{err: busy}, Containers: &fakeContainers{err: busy}, Images: &fakeImages{err: busy}})
	for name, call := range map[string]func(*Server) error{
		"StopPodSandbox": func(s *Server) error {
			_, err := s.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: "x"})
			return err
		},
		"RemovePodSandbox": func(s *Server) error {
			_, err := s.RemovePodSandbox(t.Context(), &cri.RemovePodSandboxRequest{PodSandboxId: "x"})
			return err
		},
		"StopContainer": func(s *Server) error {
			_, err := s.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: "x"})
			return err
		},
		"RemoveContainer": func(s *Server) error {
			_, err := s.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: "x"})
			return err
		},
		"RemoveImage": func(s *Server) error {
			_, err := s.RemoveImage(t.Context(), &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: "x"}})
			return err
		},
	} {
		if err := call(absent); err != nil {
			t.Errorf("%s of an object that does not exist: %v", name, err)
		}
		if err := call(failing); !errors.Is(err, busy) {
			t.Errorf("%s: got %v, want the error of the manager", name, err)
		}
	}
}

// TestUnknownRuntimeHandlerOfImage checks every RPC whose request has an ImageSpec.
func TestUnknownRuntimeHandlerOfImage(t *testing.T) {
	s := New(Config{Runtimes: &fakeRuntimes{handlers: []*cri.RuntimeHandler{{Name: ""}, {Name: "runc"}, {Name: "runsc"}}}}) // without managers, which would panic
	spec := &cri.ImageSpec{Image: "busybox", RuntimeHandler: "kata"}
	for name, call := range map[string]func() error{
		"PullImage": func() error { _, err := s.PullImage(t.Context(), &cri.PullImageRequest{Image: spec}); return err },
		"ImageStatus": func() error {
			_, err := s.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: spec})
			return err
		},
		"RemoveImage": func() error {
			_, err := s.RemoveImage(t.Context(), &cri.RemoveImageRequest{Image: spec})
			return err
		},
		"ListImages": func() error {
			_, err := s.ListImages(t.Context(), &cri.ListImagesRequest{Filter: &cri.ImageFilter{Image: spec}})
			return err
		},
		"CreateContainer": func() error {
			_, err := s.CreateContainer(t.Context(), &cri.CreateContainerRequest{
				PodSandboxId: "p", Config: &cri.ContainerConfig{Image: spec}, SandboxConfig: &cri.PodSandboxConfig{},
			})
			return err
		},
	} {
		err := call()
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), `image.runtime_handler "kata" is unknown; there are ["runc" "runsc"]`) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, handler := range []string{"", "runc", "runsc"} {
		if err := s.checkRuntimeHandler("image", &cri.ImageSpec{RuntimeHandler: handler}); err != nil {
			t.Errorf("handler %q: %v", handler, err)
		}
	}
}

// execContainers is a Containers whose ExecSync returns result. It records the
// timeouts of ExecSync and Stop.
type execContainers struct {
	Containers
	result  container.ExecResult
	timeout time.Duration
}

func (c *execContainers) ExecSync(_ context.Context, _ string, _ []string, timeout time.Duration) (container.ExecResult, error) {
	c.timeout = timeout
	return c.result, nil
}

func (c *execContainers) Stop(_ context.Context, _ string, timeout time.Duration) error {
	c.timeout = timeout
	return nil
}

// TestTimeoutSeconds checks that a number of seconds that a Duration cannot hold becomes the longest Duration.
func TestTimeoutSeconds(t *testing.T) {
	const overflow = math.MaxInt64/int64(time.Second) + 1
	for seconds, want := range map[int64]time.Duration{
		-1: 0, 0: 0, 30: 30 * time.Second,
		overflow - 1: time.Duration(overflow-1) * time.Second, overflow: math.MaxInt64, math.MaxInt64: math.MaxInt64,
		2 * overflow: math.MaxInt64, // overflows to a small positive number
	} {
		f := &execContainers{}
		s := New(Config{Containers: f})
		if _, err := s.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: "x", Timeout: seconds}); err != nil || f.timeout != want {
			t.Errorf("stop with %d s: %s, %v; want %s", seconds, f.timeout, err, want)
		}
		if seconds < 0 {
			continue // ExecSync refuses a negative timeout
		}
		if _, err := s.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: "x", Cmd: []string{"y"}, Timeout: seconds}); err != nil || f.timeout != want {
			t.Errorf("exec with %d s: %s, %v; want %s", seconds, f.timeout, err, want)
		}
	}
}

func TestPodFilter(t *testing.T) {
	pod := func(id string, ready bool, app string) *sandbox.Pod {
		return &sandbox.Pod{ID: id, Ready: ready, Config: &cri.PodSandboxConfig{Labels: map[string]string{"app": app, "tier": "x"}}}
	}
	s := New(Config{Pods: &fakePods{pods: []*sandbox.Pod{pod("aa1", true, "web"), pod("aa2", false, "web"), pod("bb1", true, "db")}}})
	for name, tc := range map[string]struct {
		filter *cri.PodSandboxFilter
		want   []string
	}{
		"no filter":  {nil, []string{"aa1", "aa2", "bb1"}},
		"full id":    {&cri.PodSandboxFilter{Id: "bb1"}, []string{"bb1"}},
		"short id":   {&cri.PodSandboxFilter{Id: "aa"}, []string{"aa1", "aa2"}},
		"unknown id": {&cri.PodSandboxFilter{Id: "cc"}, nil},
		"state":      {&cri.PodSandboxFilter{State: &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY}}, []string{"aa1", "bb1"}},
		"label":      {&cri.PodSandboxFilter{LabelSelector: map[string]string{"app": "web"}}, []string{"aa1", "aa2"}},
		"labels":     {&cri.PodSandboxFilter{LabelSelector: map[string]string{"app": "web", "tier": "y"}}, nil},
		"all conditions": {&cri.PodSandboxFilter{
			Id: "aa", LabelSelector: map[string]string{"app": "web"}, State: &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_NOTREADY},
		}, []string{"aa2"}},
	} {
		r, err := s.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{Filter: tc.filter})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range r.GetItems() {
			got = append(got, p.GetId())
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

func TestContainerFilter(t *testing.T) {
	snapshot := func(id, pod string, st container.State) *container.Snapshot {
		return &container.Snapshot{ID: id, PodID: pod, State: st, Config: &cri.ContainerConfig{}}
	}
	s := New(Config{Images: &fakeImages{}, Containers: &fakeContainers{list: []*container.Snapshot{
		snapshot("a", "p1", container.Created), snapshot("b", "p1", container.Running), snapshot("c", "p2", container.Exited), snapshot("d", "p2", container.Unknown),
	}}})
	r, err := s.ListContainers(t.Context(), &cri.ListContainersRequest{Filter: &cri.ContainerFilter{PodSandboxId: "p2"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []cri.ContainerState
	for _, c := range r.GetContainers() {
		got = append(got, c.GetState())
	}
	if !slices.Equal(got, []cri.ContainerState{cri.ContainerState_CONTAINER_EXITED, cri.ContainerState_CONTAINER_UNKNOWN}) {
		t.Errorf("got %v", got)
	}
}
