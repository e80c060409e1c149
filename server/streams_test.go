package server

import (
	"context"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/sandbox"
	"github.com/criserver/criserver/server/rpc"
	"github.com/criserver/criserver/server/streaming"
)

// streamContainers is a Containers with one container in each state.
type streamContainers struct{ Containers }

func (streamContainers) Get(id string) (*container.Snapshot, error) {
	states := map[string]container.State{"running": container.Running, "created": container.Created, "exited": container.Exited}
	state, ok := states[id]
	if !ok {
		return nil, fmt.Errorf("container %q: %w", id, errdefs.ErrNotFound)
	}
	return &container.Snapshot{ID: id + "-full", State: state}, nil
}

// streamPods is a Pods with a ready and a stopped pod sandbox.
type streamPods struct{ Pods }

func (streamPods) Get(id string) (*sandbox.Pod, error) {
	if id != "ready" && id != "stopped" {
		return nil, fmt.Errorf("pod sandbox %q: %w", id, errdefs.ErrNotFound)
	}
	return &sandbox.Pod{ID: id + "-full", Ready: id == "ready"}, nil
}

// fakeStreams is a Streams whose URLs contain the request.
type fakeStreams struct{ err error }

func (f fakeStreams) Exec(id string, cmd []string, o streaming.Options) (string, error) {
	return fmt.Sprint("exec ", id, cmd, o), f.err
}

func (f fakeStreams) Attach(id string, o streaming.Options) (string, error) {
	return fmt.Sprint("attach ", id, o), f.err
}

func (f fakeStreams) PortForward(id string, ports []int32) (string, error) {
	return fmt.Sprint("forward ", id, ports), f.err
}

func streamServer(f fakeStreams) *Server {
	return New(Config{Containers: streamContainers{}, Pods: streamPods{}, Streams: f})
}

func TestExecAndAttachRequests(t *testing.T) {
	ctx := context.Background()
	s := streamServer(fakeStreams{})
	cmd := []string{"ls"}
	for name, tc := range map[string]struct {
		req  *cri.ExecRequest
		code codes.Code
		url  string
	}{
		"all":          {&cri.ExecRequest{ContainerId: "running", Cmd: cmd, Stdin: true, Stdout: true, Stderr: true}, codes.OK, "exec running-full[ls] {true true true false}"},
		"terminal":     {&cri.ExecRequest{ContainerId: "running", Cmd: cmd, Stdin: true, Stdout: true, Tty: true}, codes.OK, "exec running-full[ls] {true true false true}"},
		"stdin only":   {&cri.ExecRequest{ContainerId: "running", Cmd: cmd, Stdin: true}, codes.OK, "exec running-full[ls] {true false false false}"},
		"no streams":   {&cri.ExecRequest{ContainerId: "running", Cmd: cmd}, codes.InvalidArgument, ""},
		"tty, stderr":  {&cri.ExecRequest{ContainerId: "running", Cmd: cmd, Stdout: true, Stderr: true, Tty: true}, codes.InvalidArgument, ""},
		"no container": {&cri.ExecRequest{Cmd: cmd, Stdout: true}, codes.InvalidArgument, ""},
		"unknown":      {&cri.ExecRequest{ContainerId: "unknown", Cmd: cmd, Stdout: true}, codes.NotFound, ""},
		"not started":  {&cri.ExecRequest{ContainerId: "created", Cmd: cmd, Stdout: true}, codes.FailedPrecondition, ""},
		"exited":       {&cri.ExecRequest{ContainerId: "exited", Cmd: cmd, Stdout: true}, codes.FailedPrecondition, ""},
	} {
		resp, err := s.Exec(ctx, tc.req)
		if status.Code(rpc.Error(err)) != tc.code || resp.GetUrl() != tc.url {
			t.Errorf("exec, %s: %q, %v", name, resp.GetUrl(), err)
		}
		// The same rules apply to attach.
		q := &cri.AttachRequest{ContainerId: tc.req.ContainerId, Stdin: tc.req.Stdin, Stdout: tc.req.Stdout, Stderr: tc.req.Stderr, Tty: tc.req.Tty}
		if _, err := s.Attach(ctx, q); status.Code(rpc.Error(err)) != tc.code {
			t.Errorf("attach, %s: %v", name, err)
		}
	}
	if _, err := s.Exec(ctx, &cri.ExecRequest{ContainerId: "running", Stdout: true}); status.Code(rpc.Error(err)) != codes.InvalidArgument {
		t.Errorf("exec without a command: %v", err)
	}
	busy := streamServer(fakeStreams{err: errdefs.ErrResourceExhausted})
	if _, err := busy.Exec(ctx, &cri.ExecRequest{ContainerId: "running", Cmd: cmd, Stdout: true}); status.Code(rpc.Error(err)) != codes.ResourceExhausted {
		t.Errorf("exec with too many pending streams: %v", err)
	}
}

func TestPortForwardRequests(t *testing.T) {
	s := streamServer(fakeStreams{})
	for name, tc := range map[string]struct {
		req  *cri.PortForwardRequest
		code codes.Code
		url  string
	}{
		"ports":      {&cri.PortForwardRequest{PodSandboxId: "ready", Port: []int32{1, 65535}}, codes.OK, "forward ready-full[1 65535]"},
		"no ports":   {&cri.PortForwardRequest{PodSandboxId: "ready"}, codes.OK, "forward ready-full[]"},
		"port 0":     {&cri.PortForwardRequest{PodSandboxId: "ready", Port: []int32{80, 0}}, codes.InvalidArgument, ""},
		"port 65536": {&cri.PortForwardRequest{PodSandboxId: "ready", Port: []int32{65536}}, codes.InvalidArgument, ""},
		"no pod":     {&cri.PortForwardRequest{}, codes.InvalidArgument, ""},
		"unknown":    {&cri.PortForwardRequest{PodSandboxId: "unknown"}, codes.NotFound, ""},
		"stopped":    {&cri.PortForwardRequest{PodSandboxId: "stopped"}, codes.FailedPrecondition, ""},
		"port -1":    {&cri.PortForwardRequest{PodSandboxId: "ready", Port: []int32{-1}}, codes.InvalidArgument, ""},
	} {
		resp, err := s.PortForward(context.Background(), tc.req)
		if status.Code(rpc.Error(err)) != tc.code || resp.GetUrl() != tc.url {
			t.Errorf("%s: %q, %v", name, resp.GetUrl(), err)
		}
	}
}
