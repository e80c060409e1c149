package server

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/container"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CreateContainer creates a container in a pod sandbox. A request that repeats an
// earlier one returns the container of the earlier request.
//
// Errors: InvalidArgument for a config that violates a rule, NotFound for an
// unknown pod sandbox or image, AlreadyExists if a container with another config
// has the name, FailedPrecondition if the pod sandbox is not ready or the node
// lacks a feature, and Unimplemented if the runtime handler lacks it. The CRI
// requires sandbox_config, which repeats the config of RunPodSandbox.
//
// If the configuration allows it, the image can be the path of a checkpoint archive, or contain the files of such
// an archive. The container is restored when it is started.
func (s *Server) CreateContainer(ctx context.Context, req *cri.CreateContainerRequest) (*cri.CreateContainerResponse, error) {
	switch {
	case req.GetPodSandboxId() == "":
		return nil, missing("pod_sandbox_id")
	case req.GetConfig() == nil:
		return nil, missing("config")
	case req.GetSandboxConfig() == nil:
		return nil, missing("sandbox_config")
	}
	if err := s.checkRuntimeHandler("config.image", req.GetConfig().GetImage()); err != nil {
		return nil, err
	}
	create := func() (string, error) {
		if s.cfg.Restores.IsArchive(req.GetConfig().GetImage().GetImage()) {
			return s.cfg.Restores.CreateContainer(ctx, req.GetPodSandboxId(), req.GetConfig())
		}
		id, err := s.cfg.Containers.Create(ctx, req.GetPodSandboxId(), req.GetConfig(), req.GetSandboxConfig())
		var image *container.CheckpointImageError
		if errors.As(err, &image) {
			return s.cfg.Restores.CreateContainerFromImage(ctx, req.GetPodSandboxId(), req.GetConfig(), image.ImageID)
		}
		return id, err
	}
	id, err := create()
	if err != nil {
		return nil, err
	}
	return &cri.CreateContainerResponse{ContainerId: id}, nil
}

// StartContainer starts the process of a created container.
//
// Errors: InvalidArgument for an empty or ambiguous id, NotFound, and
// FailedPrecondition if the container was started before or its pod sandbox is not
// ready. If the runtime cannot start the process, the code is Unknown and the
// container is exited.
func (s *Server) StartContainer(ctx context.Context, req *cri.StartContainerRequest) (*cri.StartContainerResponse, error) {
	if req.GetContainerId() == "" {
		return nil, missing("container_id")
	}
	return &cri.StartContainerResponse{}, s.cfg.Containers.Start(ctx, req.GetContainerId())
}

// StopContainer stops a container. It sends the stop signal, and SIGKILL after the
// timeout, as the CRI demands. A timeout of 0 means SIGKILL at once.
//
// Errors: InvalidArgument for an empty or ambiguous id, and DeadlineExceeded if the
// container survives SIGKILL. The CRI demands that StopContainer is idempotent: a
// container that is stopped or does not exist is no error.
func (s *Server) StopContainer(ctx context.Context, req *cri.StopContainerRequest) (*cri.StopContainerResponse, error) {
	if req.GetContainerId() == "" {
		return nil, missing("container_id")
	}
	return &cri.StopContainerResponse{}, ignoreNotFound(s.cfg.Containers.Stop(ctx, req.GetContainerId(), secondsToDuration(req.GetTimeout())))
}

// RemoveContainer removes a container. It kills a container that runs, as the CRI
// demands.
//
// Errors: InvalidArgument for an empty or ambiguous id. The CRI demands that
// RemoveContainer is idempotent: a container that does not exist is no error.
func (s *Server) RemoveContainer(ctx context.Context, req *cri.RemoveContainerRequest) (*cri.RemoveContainerResponse, error) {
	if req.GetContainerId() == "" {
		return nil, missing("container_id")
	}
	return &cri.RemoveContainerResponse{}, ignoreNotFound(s.cfg.Containers.Remove(ctx, req.GetContainerId()))
}

// ListContainers lists the containers that fulfil all conditions of the filter.
//
// Errors: ResourceExhausted if the list is too large for a message.
func (s *Server) ListContainers(_ context.Context, req *cri.ListContainersRequest) (*cri.ListContainersResponse, error) {
	return &cri.ListContainersResponse{Containers: slices.Collect(s.containers(req.GetFilter()))}, nil
}

// StreamContainers returns the list of ListContainers in messages of bounded size,
// each with at least one item, as the CRI demands.
func (s *Server) StreamContainers(req *cri.StreamContainersRequest, out cri.RuntimeService_StreamContainersServer) error {
	return sendBatches(s.containers(req.GetFilter()), func(items []*cri.Container) error {
		return out.Send(&cri.StreamContainersResponse{Containers: items})
	})
}

func (s *Server) containers(f *cri.ContainerFilter) iter.Seq[*cri.Container] {
	match := matchContainer(f)
	return func(yield func(*cri.Container) bool) {
		for _, c := range s.cfg.Containers.List() {
			if match(c) && !yield(s.containerItem(c)) {
				return
			}
		}
	}
}

// ContainerStatus returns the status of one container.
//
// Errors: InvalidArgument for an empty or ambiguous id, and NotFound, as the CRI
// demands an error for a container that does not exist.
func (s *Server) ContainerStatus(_ context.Context, req *cri.ContainerStatusRequest) (*cri.ContainerStatusResponse, error) {
	if req.GetContainerId() == "" {
		return nil, missing("container_id")
	}
	c, err := s.cfg.Containers.Get(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	resp := &cri.ContainerStatusResponse{Status: s.containerStatus(c)}
	if req.GetVerbose() {
		resp.Info, err = containerInfo(c)
	}
	return resp, err
}

// UpdateContainerResources changes the resource limits of a created or running
// container. The CRI demands that the update is transactional: if one limit cannot be
// set, the others are restored.
//
// Errors: InvalidArgument for a limit that violates a rule, NotFound,
// FailedPrecondition if the container is exited or uses more memory than the new
// limit, and Unimplemented if the runtime handler cannot change limits.
func (s *Server) UpdateContainerResources(ctx context.Context, req *cri.UpdateContainerResourcesRequest) (*cri.UpdateContainerResourcesResponse, error) {
	if req.GetContainerId() == "" {
		return nil, missing("container_id")
	}
	if req.GetLinux() == nil {
		return nil, missing("linux")
	}
	if req.GetWindows() != nil {
		return nil, fmt.Errorf("windows must not be given on Linux: %w", errdefs.ErrInvalidArgument)
	}
	return &cri.UpdateContainerResourcesResponse{}, s.cfg.Containers.UpdateResources(ctx, req.GetContainerId(), req.GetLinux())
}

// ReopenContainerLog opens the log file again after its rotation.
//
// Errors: InvalidArgument for an empty or ambiguous id, NotFound, and
// FailedPrecondition for a container that is exited. The CRI allows this error, and
// demands that no log file is created if there is one.
func (s *Server) ReopenContainerLog(ctx context.Context, req *cri.ReopenContainerLogRequest) (*cri.ReopenContainerLogResponse, error) {
	if req.GetContainerId() == "" {
		return nil, missing("container_id")
	}
	return &cri.ReopenContainerLogResponse{}, s.cfg.Containers.ReopenLog(ctx, req.GetContainerId())
}

// ExecSync runs a command in a running container and returns its exit code and its
// output. The output is truncated to the size of a message, as the CRI demands.
//
// Errors: InvalidArgument without a command or for a negative timeout, NotFound,
// FailedPrecondition if the container does not run, and DeadlineExceeded if the
// command does not end in time, by which the kubelet recognizes the timeout of a
// probe.
func (s *Server) ExecSync(ctx context.Context, req *cri.ExecSyncRequest) (*cri.ExecSyncResponse, error) {
	switch {
	case req.GetContainerId() == "":
		return nil, missing("container_id")
	case len(req.GetCmd()) == 0:
		return nil, missing("cmd")
	case req.GetTimeout() < 0:
		return nil, fmt.Errorf("timeout must not be negative, is %d s: %w", req.GetTimeout(), errdefs.ErrInvalidArgument)
	}
	r, err := s.cfg.Containers.ExecSync(ctx, req.GetContainerId(), req.GetCmd(), secondsToDuration(req.GetTimeout()))
	if err != nil {
		return nil, err
	}
	resp := &cri.ExecSyncResponse{Stdout: r.Stdout, Stderr: r.Stderr, ExitCode: r.ExitCode}
	truncateOutput(resp)
	return resp, nil
}
