package server

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/containerd/errdefs"

	"github.com/criserver/criserver/container"
)

// CreateContainer makes a container in a pod.
func (s *Server) CreateContainer(ctx context.Context, req *cri.CreateContainerRequest) (*cri.CreateContainerResponse, error) {
	switch {
	case req.GetPodSandboxId() == "":
		return nil, missing("pod_sandbox_id")
	case req.GetConfig() == nil:
		return nil, missing("config")
	case req.GetSandboxConfig() == nil:
		return nil, missing("sandbox_config")
	}
	if err := s.checkHandler("config.image", req.GetConfig().GetImage()); err != nil {
		return nil, err
	}
	id, err := s.cfg.Containers.Create(ctx, req.GetPodSandboxId(), req.GetConfig(), req.GetSandboxConfig())
	if err != nil {
		return nil, err
	}
	return &cri.CreateContainerResponse{ContainerId: id}, nil
}

// StartContainer runs the process of a created container.
func (s *Server) StartContainer(ctx context.Context, req *cri.StartContainerRequest) (*cri.StartContainerResponse, error) {
	if req.GetContainerId() == "" {
		return nil, missing("container_id")
	}
	return &cri.StartContainerResponse{}, s.cfg.Containers.Start(ctx, req.GetContainerId())
}

// StopContainer ends a container. It is idempotent.
func (s *Server) StopContainer(ctx context.Context, req *cri.StopContainerRequest) (*cri.StopContainerResponse, error) {
	if req.GetContainerId() == "" {
		return nil, missing("container_id")
	}
	return &cri.StopContainerResponse{}, ifFound(s.cfg.Containers.Stop(ctx, req.GetContainerId(), timeoutOf(req.GetTimeout())))
}

// RemoveContainer removes a container, killing it first if it runs. It is
// idempotent.
func (s *Server) RemoveContainer(ctx context.Context, req *cri.RemoveContainerRequest) (*cri.RemoveContainerResponse, error) {
	if req.GetContainerId() == "" {
		return nil, missing("container_id")
	}
	return &cri.RemoveContainerResponse{}, ifFound(s.cfg.Containers.Remove(ctx, req.GetContainerId()))
}

// ListContainers lists the containers that the filter lets through.
func (s *Server) ListContainers(_ context.Context, req *cri.ListContainersRequest) (*cri.ListContainersResponse, error) {
	return &cri.ListContainersResponse{Containers: slices.Collect(s.containerItems(req.GetFilter()))}, nil
}

func (s *Server) containerItems(f *cri.ContainerFilter) iter.Seq[*cri.Container] {
	match := containerFilter(f)
	return func(yield func(*cri.Container) bool) {
		for _, c := range s.cfg.Containers.List() {
			if match(c) && !yield(s.containerItem(c)) {
				return
			}
		}
	}
}

// ContainerStatus describes one container.
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

// UpdateContainerResources changes the limits of a container.
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

// ReopenContainerLog follows a rotation of the log file.
func (s *Server) ReopenContainerLog(ctx context.Context, req *cri.ReopenContainerLogRequest) (*cri.ReopenContainerLogResponse, error) {
	if req.GetContainerId() == "" {
		return nil, missing("container_id")
	}
	return &cri.ReopenContainerLogResponse{}, s.cfg.Containers.ReopenLog(ctx, req.GetContainerId())
}

// timeoutOf returns a duration of n seconds: 0 for a negative n, and the longest that
// there is for an n that a Duration cannot hold.
func timeoutOf(n int64) time.Duration {
	const longest = math.MaxInt64 / int64(time.Second)
	if n > longest {
		return math.MaxInt64
	}
	return time.Duration(max(n, 0)) * time.Second
}

// ExecSync runs a command in a container and returns the beginning of what the
// command wrote: see capOutput.
func (s *Server) ExecSync(ctx context.Context, req *cri.ExecSyncRequest) (*cri.ExecSyncResponse, error) {
	switch {
	case req.GetContainerId() == "":
		return nil, missing("container_id")
	case len(req.GetCmd()) == 0:
		return nil, missing("cmd")
	case req.GetTimeout() < 0:
		return nil, fmt.Errorf("timeout must not be negative, is %d s: %w", req.GetTimeout(), errdefs.ErrInvalidArgument)
	}
	r, err := s.cfg.Containers.ExecSync(ctx, req.GetContainerId(), req.GetCmd(), timeoutOf(req.GetTimeout()))
	if err != nil {
		return nil, err
	}
	resp := &cri.ExecSyncResponse{Stdout: r.Stdout, Stderr: r.Stderr, ExitCode: r.ExitCode}
	capOutput(resp)
	return resp, nil
}

func containerState(c *container.Snapshot) cri.ContainerState {
	switch c.State {
	case container.Created:
		return cri.ContainerState_CONTAINER_CREATED
	case container.Running:
		return cri.ContainerState_CONTAINER_RUNNING
	case container.Exited:
		return cri.ContainerState_CONTAINER_EXITED
	}
	return cri.ContainerState_CONTAINER_UNKNOWN
}

func (s *Server) containerItem(c *container.Snapshot) *cri.Container {
	return &cri.Container{
		Id:           c.ID,
		PodSandboxId: c.PodID,
		Metadata:     c.Config.GetMetadata(),
		Image:        imageSpec(c),
		ImageRef:     s.digestedRef(c.ImageID, c.ImageRef),
		ImageId:      c.ImageID,
		State:        containerState(c),
		CreatedAt:    c.CreatedAt.UnixNano(),
		Labels:       c.Config.GetLabels(),
		Annotations:  c.Config.GetAnnotations(),
	}
}

// nanos is 0 for a time that has not come.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func (s *Server) containerStatus(c *container.Snapshot) *cri.ContainerStatus {
	return &cri.ContainerStatus{
		Id:          c.ID,
		Metadata:    c.Config.GetMetadata(),
		State:       containerState(c),
		CreatedAt:   nanos(c.CreatedAt),
		StartedAt:   nanos(c.StartedAt),
		FinishedAt:  nanos(c.FinishedAt),
		ExitCode:    c.ExitCode,
		Image:       imageSpec(c),
		ImageRef:    s.digestedRef(c.ImageID, c.ImageRef),
		ImageId:     c.ImageID,
		Reason:      c.Reason,
		Message:     c.Message,
		Labels:      c.Config.GetLabels(),
		Annotations: c.Config.GetAnnotations(),
		Mounts:      c.Mounts,
		LogPath:     c.LogPath,
		Resources:   &cri.ContainerResources{Linux: c.Resources},
		User: &cri.ContainerUser{Linux: &cri.LinuxContainerUser{
			Uid: c.UID, Gid: c.GID, SupplementalGroups: c.SupplementalGroups,
		}},
		StopSignal: stopSignal(c),
	}
}

func containerInfo(c *container.Snapshot) (map[string]string, error) {
	info := struct {
		PID            int             `json:"pid,omitempty"`
		PodID          string          `json:"sandboxID"`
		RuntimeHandler string          `json:"runtimeHandler"`
		RootFS         string          `json:"rootfs"`
		CgroupPath     string          `json:"cgroupPath"`
		RunDir         string          `json:"runDir"`
		RuntimeSpec    json.RawMessage `json:"runtimeSpec,omitempty"`
	}{c.PID, c.PodID, c.RuntimeHandler, c.RootFS, c.CgroupPath, c.RunDir, nil}
	// The bundle is on tmpfs; a container whose creation failed has none.
	if b, err := os.ReadFile(filepath.Join(c.RunDir, "config.json")); err == nil && json.Valid(b) {
		info.RuntimeSpec = b
	}
	return verbose(info)
}
