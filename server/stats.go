package server

import (
	"context"
	"iter"
	"slices"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ContainerStats returns the figures of one container.
func (s *Server) ContainerStats(_ context.Context, req *cri.ContainerStatsRequest) (*cri.ContainerStatsResponse, error) {
	if req.GetContainerId() == "" {
		return nil, missing("container_id")
	}
	st, err := s.cfg.Containers.Stats(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	return &cri.ContainerStatsResponse{Stats: containerStats(st)}, nil
}

// ListContainerStats returns the figures of the running containers that the
// filter lets through.
func (s *Server) ListContainerStats(_ context.Context, req *cri.ListContainerStatsRequest) (*cri.ListContainerStatsResponse, error) {
	return &cri.ListContainerStatsResponse{Stats: slices.Collect(s.containerStats(req.GetFilter()))}, nil
}

// StreamContainerStats is ListContainerStats in messages of bounded size.
func (s *Server) StreamContainerStats(req *cri.StreamContainerStatsRequest, out cri.RuntimeService_StreamContainerStatsServer) error {
	return batches(s.containerStats(req.GetFilter()), func(items []*cri.ContainerStats) error {
		return out.Send(&cri.StreamContainerStatsResponse{ContainerStats: items})
	})
}

func (s *Server) containerStats(f *cri.ContainerStatsFilter) iter.Seq[*cri.ContainerStats] {
	return func(yield func(*cri.ContainerStats) bool) {
		for st := range s.cfg.Containers.StatsOf(statsFilter(f)) {
			if !yield(containerStats(st)) {
				return
			}
		}
	}
}
