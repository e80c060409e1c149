package server

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/server/streaming"
)

// Streams registers streams and returns the URLs at which clients open them.
// *streaming.Server implements it.
type Streams interface {
	Exec(containerID string, cmd []string, o streaming.Options) (url string, err error)
	Attach(containerID string, o streaming.Options) (url string, err error)
	PortForward(podID string, ports []int32) (url string, err error)
}

// Exec returns a URL at which a client runs a command in a running container.
//
// Errors: InvalidArgument without a command or for a combination of streams that the
// CRI forbids, NotFound, FailedPrecondition if the container does not run,
// ResourceExhausted if too many URLs wait for their clients, and Unavailable while
// the daemon starts or stops.
func (s *Server) Exec(_ context.Context, req *cri.ExecRequest) (*cri.ExecResponse, error) {
	switch {
	case req.GetContainerId() == "":
		return nil, missing("container_id")
	case len(req.GetCmd()) == 0:
		return nil, missing("cmd")
	}
	c, o, err := s.checkStreamRequest("exec in", req)
	if err != nil {
		return nil, err
	}
	url, err := s.cfg.Streams.Exec(c.ID, req.GetCmd(), o)
	if err != nil {
		return nil, fmt.Errorf("exec in container %q: %w", c.ID, err)
	}
	return &cri.ExecResponse{Url: url}, nil
}

// Attach returns a URL at which a client attaches to the streams of a running
// container.
//
// Errors: InvalidArgument for a combination of streams that the CRI forbids,
// NotFound, FailedPrecondition if the container does not run, ResourceExhausted if
// too many URLs wait for their clients, and Unavailable while the daemon starts or
// stops.
func (s *Server) Attach(_ context.Context, req *cri.AttachRequest) (*cri.AttachResponse, error) {
	c, o, err := s.checkStreamRequest("attach to", req)
	if err != nil {
		return nil, err
	}
	url, err := s.cfg.Streams.Attach(c.ID, o)
	if err != nil {
		return nil, fmt.Errorf("attach to container %q: %w", c.ID, err)
	}
	return &cri.AttachResponse{Url: url}, nil
}

// PortForward returns a URL at which a client connects to TCP ports of a ready pod
// sandbox. The ports may be empty: a client that speaks SPDY names the ports later.
//
// Errors: InvalidArgument for a number that is no port, NotFound, FailedPrecondition
// if the pod sandbox is not ready, ResourceExhausted if too many URLs wait for their
// clients, and Unavailable while the daemon starts or stops.
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
		return nil, fmt.Errorf("forward ports of pod sandbox %q: pod sandbox is not ready: %w", pod.ID, errdefs.ErrFailedPrecondition)
	}
	url, err := s.cfg.Streams.PortForward(pod.ID, req.GetPort())
	if err != nil {
		return nil, fmt.Errorf("forward ports of pod sandbox %q: %w", pod.ID, err)
	}
	return &cri.PortForwardResponse{Url: url}, nil
}

// streamRequest has the fields that ExecRequest and AttachRequest share.
type streamRequest interface {
	GetContainerId() string
	GetTty() bool
	GetStdin() bool
	GetStdout() bool
	GetStderr() bool
}

// checkStreamRequest checks a request by the rules that the CRI has for exec and
// attach: at least one of stdin, stdout and stderr must be set, and a terminal
// excludes stderr. The verb is for error messages.
func (s *Server) checkStreamRequest(verb string, req streamRequest) (*container.Snapshot, streaming.Options, error) {
	o := streaming.Options{Stdin: req.GetStdin(), Stdout: req.GetStdout(), Stderr: req.GetStderr(), TTY: req.GetTty()}
	switch {
	case req.GetContainerId() == "":
		return nil, o, missing("container_id")
	case !o.Stdin && !o.Stdout && !o.Stderr:
		return nil, o, fmt.Errorf("one of stdin, stdout and stderr must be set: %w", errdefs.ErrInvalidArgument)
	case o.TTY && o.Stderr:
		return nil, o, fmt.Errorf("tty and stderr must not both be set, because a terminal has one output: %w", errdefs.ErrInvalidArgument)
	}
	c, err := s.cfg.Containers.Get(req.GetContainerId())
	if err != nil {
		return nil, o, err
	}
	if c.State != container.Running {
		return nil, o, fmt.Errorf("%s container %q: container is %s: %w", verb, c.ID, c.State, errdefs.ErrFailedPrecondition)
	}
	return c, o, nil
}
