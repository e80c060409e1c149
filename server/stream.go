package server

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/server/streaming"
)

// Streams hands out the addresses at which clients find streams;
// *streaming.Server does.
type Streams interface {
	Exec(containerID string, cmd []string, o streaming.Options) (url string, err error)
	Attach(containerID string, o streaming.Options) (url string, err error)
	PortForward(podID string, ports []int32) (url string, err error)
}

// Exec prepares a command with streams.
func (s *Server) Exec(_ context.Context, req *cri.ExecRequest) (*cri.ExecResponse, error) {
	switch {
	case req.GetContainerId() == "":
		return nil, missing("container_id")
	case len(req.GetCmd()) == 0:
		return nil, missing("cmd")
	}
	c, o, err := s.streams("exec in", req)
	if err != nil {
		return nil, err
	}
	url, err := s.cfg.Streams.Exec(c.ID, req.GetCmd(), o)
	if err != nil {
		return nil, fmt.Errorf("exec in container %q: %w", c.ID, err)
	}
	return &cri.ExecResponse{Url: url}, nil
}

// Attach prepares the streams of a running container.
func (s *Server) Attach(_ context.Context, req *cri.AttachRequest) (*cri.AttachResponse, error) {
	c, o, err := s.streams("attach to", req)
	if err != nil {
		return nil, err
	}
	url, err := s.cfg.Streams.Attach(c.ID, o)
	if err != nil {
		return nil, fmt.Errorf("attach to container %q: %w", c.ID, err)
	}
	return &cri.AttachResponse{Url: url}, nil
}

// PortForward prepares connections to ports of a pod.
func (s *Server) PortForward(_ context.Context, req *cri.PortForwardRequest) (*cri.PortForwardResponse, error) {
	if req.GetPodSandboxId() == "" {
		return nil, missing("pod_sandbox_id")
	}
	for i, p := range req.GetPort() {
		if p < 1 || p > 65535 {
			return nil, fmt.Errorf("port[%d] must be 1 to 65535, is %d: %w", i, p, errdefs.ErrInvalidArgument)
		}
	}
	pod, err := s.cfg.Pods.Get(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	if !pod.Ready {
		return nil, fmt.Errorf("forward ports of pod sandbox %q: it is not ready: %w", pod.ID, errdefs.ErrFailedPrecondition)
	}
	url, err := s.cfg.Streams.PortForward(pod.ID, req.GetPort())
	if err != nil {
		return nil, fmt.Errorf("forward ports of pod sandbox %q: %w", pod.ID, err)
	}
	return &cri.PortForwardResponse{Url: url}, nil
}

// streamRequest is what ExecRequest and AttachRequest have in common.
type streamRequest interface {
	GetContainerId() string
	GetTty() bool
	GetStdin() bool
	GetStdout() bool
	GetStderr() bool
}

// streams checks a request by the rules that the CRI has for both.
func (s *Server) streams(verb string, req streamRequest) (*container.Snapshot, streaming.Options, error) {
	o := streaming.Options{Stdin: req.GetStdin(), Stdout: req.GetStdout(), Stderr: req.GetStderr(), TTY: req.GetTty()}
	switch {
	case req.GetContainerId() == "":
		return nil, o, missing("container_id")
	case !o.Stdin && !o.Stdout && !o.Stderr:
		return nil, o, fmt.Errorf("one of stdin, stdout and stderr must be set: %w", errdefs.ErrInvalidArgument)
	case o.TTY && o.Stderr:
		return nil, o, fmt.Errorf("tty and stderr must not both be set: a terminal has one output: %w", errdefs.ErrInvalidArgument)
	}
	c, err := s.cfg.Containers.Get(req.GetContainerId())
	if err != nil {
		return nil, o, err
	}
	if c.State != container.Running {
		return nil, o, fmt.Errorf("%s container %q: it is %s: %w", verb, c.ID, c.State, errdefs.ErrFailedPrecondition)
	}
	return c, o, nil
}
