package server

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/checkpoint"
)

// CheckpointContainer writes a checkpoint of a running container to an archive. The
// container continues to run. A timeout of 0 is the default, 10 minutes.
//
// Errors: InvalidArgument for a location that is empty, not absolute or not in an
// existing directory, and for a negative timeout; NotFound; FailedPrecondition if the
// container does not run, or has state that a checkpoint cannot contain; Unimplemented
// if its runtime handler cannot checkpoint; DeadlineExceeded; Aborted if a client stops
// the container during the checkpoint.
func (s *Server) CheckpointContainer(ctx context.Context, req *cri.CheckpointContainerRequest) (*cri.CheckpointContainerResponse, error) {
	switch {
	case req.GetContainerId() == "":
		return nil, missing("container_id")
	case req.GetTimeout() < 0:
		return nil, status.Errorf(codes.InvalidArgument, "timeout must not be negative, is %d", req.GetTimeout())
	}
	err := s.cfg.Checkpoints.Container(ctx, checkpoint.ContainerRequest{
		ID: req.GetContainerId(), Location: req.GetLocation(), Timeout: secondsToDuration(req.GetTimeout()),
	})
	if err != nil {
		return nil, notSupported("CheckpointContainer", err)
	}
	return &cri.CheckpointContainerResponse{}, nil
}

// CheckpointPod writes a checkpoint of all running containers of a pod to a directory.
// All containers are frozen while the daemon captures the containers.
//
// Errors: InvalidArgument for a call without a deadline, an option, an output_path that
// is not an existing directory, and container ids that are missing, occur twice or
// belong to another pod; NotFound; FailedPrecondition if the directory is not empty, if
// the pod is not ready, if container_ids are not exactly the running containers, or if
// the pod has state that a checkpoint cannot contain; Unimplemented if the runtime
// handler cannot checkpoint; DeadlineExceeded; Aborted if a client stops a container
// during the checkpoint.
func (s *Server) CheckpointPod(ctx context.Context, req *cri.CheckpointPodRequest) (*cri.CheckpointPodResponse, error) {
	if req.GetPodSandboxId() == "" {
		return nil, missing("pod_sandbox_id")
	}
	err := s.cfg.Checkpoints.Pod(ctx, checkpoint.PodRequest{
		ID: req.GetPodSandboxId(), Dir: req.GetOutputPath(), Containers: req.GetContainerIds(), Options: req.GetOptions(),
	})
	if err != nil {
		return nil, notSupported("CheckpointPod", err)
	}
	return &cri.CheckpointPodResponse{}, nil
}

// notSupported converts an ErrNotImplemented to Unimplemented. The message begins with
// "unknown method", because the tests of the kubelet recognize an unsupported method by
// these words.
func notSupported(method string, err error) error {
	if errdefs.IsNotImplemented(err) {
		return status.Error(codes.Unimplemented, fmt.Sprintf("unknown method %s for this runtime handler: %v", method, err))
	}
	return err
}
