package server

import (
	"context"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ContainerStats returns the figures of one container.
func (s *Server) ContainerStats(ctx context.Context, req *cri.ContainerStatsRequest) (*cri.ContainerStatsResponse, error) {
	if req.GetContainerId() == "" {
		return nil, missing("container_id")
	}
	st, err := s.cfg.Containers.Stats(ctx, req.GetContainerId())
	if err != nil {
		return nil, err
	}
	return &cri.ContainerStatsResponse{Stats: st}, nil
}

// ListContainerStats returns the figures of the containers that the filter lets
// through.
func (s *Server) ListContainerStats(ctx context.Context, req *cri.ListContainerStatsRequest) (*cri.ListContainerStatsResponse, error) {
	match := statsFilter(req.GetFilter())
	wanted := make(map[string]bool)
	for _, c := range s.cfg.Containers.List() {
		wanted[c.ID] = match(c)
	}
	all, err := s.cfg.Containers.AllStats(ctx)
	if err != nil {
		return nil, err
	}
	resp := &cri.ListContainerStatsResponse{}
	for _, st := range all {
		if wanted[st.GetAttributes().GetId()] {
			resp.Stats = append(resp.Stats, st)
		}
	}
	return resp, nil
}
