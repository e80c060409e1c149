package server

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/containerd/errdefs"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/sandbox"
	"github.com/criserver/criserver/server/stats"
)

// ContainerStats returns the stats of one container. A container that does not run
// has the stats of its writable layer only.
//
// Errors: InvalidArgument for an empty or ambiguous id, and NotFound, as the CRI
// demands an error for a container that does not exist.
func (s *Server) ContainerStats(_ context.Context, req *cri.ContainerStatsRequest) (*cri.ContainerStatsResponse, error) {
	if req.GetContainerId() == "" {
		return nil, missing("container_id")
	}
	st, err := s.cfg.Containers.Stats(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	return &cri.ContainerStatsResponse{Stats: stats.Container(st)}, nil
}

// ListContainerStats returns the stats of the running containers that match the
// filter; the CRI limits the list to running containers.
//
// Errors: ResourceExhausted if the list is too large for a message.
func (s *Server) ListContainerStats(_ context.Context, req *cri.ListContainerStatsRequest) (*cri.ListContainerStatsResponse, error) {
	return &cri.ListContainerStatsResponse{Stats: slices.Collect(s.containerStats(req.GetFilter()))}, nil
}

// StreamContainerStats returns the list of ListContainerStats in messages of
// bounded size, each with at least one item.
func (s *Server) StreamContainerStats(req *cri.StreamContainerStatsRequest, out cri.RuntimeService_StreamContainerStatsServer) error {
	return sendBatches(s.containerStats(req.GetFilter()), func(items []*cri.ContainerStats) error {
		return out.Send(&cri.StreamContainerStatsResponse{ContainerStats: items})
	})
}

func (s *Server) containerStats(f *cri.ContainerStatsFilter) iter.Seq[*cri.ContainerStats] {
	return func(yield func(*cri.ContainerStats) bool) {
		for st := range s.cfg.Containers.StatsOf(matchContainerStats(f)) {
			if !yield(stats.Container(st)) {
				return
			}
		}
	}
}

// PodSandboxStats returns the stats of one pod sandbox and of its running
// containers.
//
// Errors: InvalidArgument for an empty or ambiguous id, and NotFound, as the CRI
// demands an error for a pod sandbox that does not exist.
func (s *Server) PodSandboxStats(_ context.Context, req *cri.PodSandboxStatsRequest) (*cri.PodSandboxStatsResponse, error) {
	if req.GetPodSandboxId() == "" {
		return nil, missing("pod_sandbox_id")
	}
	pod, err := s.cfg.Pods.Get(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	for st := range s.readStats([]*sandbox.Pod{pod}) {
		return &cri.PodSandboxStatsResponse{Stats: stats.Pod(st)}, nil
	}
	return nil, fmt.Errorf("stats of pod sandbox %q: %w", pod.ID, errdefs.ErrNotFound)
}

// ListPodSandboxStats returns the stats of the ready pod sandboxes that match the
// filter. A pod that is not ready uses no resources.
//
// Errors: ResourceExhausted if the list is too large for a message.
func (s *Server) ListPodSandboxStats(_ context.Context, req *cri.ListPodSandboxStatsRequest) (*cri.ListPodSandboxStatsResponse, error) {
	return &cri.ListPodSandboxStatsResponse{Stats: slices.Collect(s.podStats(req.GetFilter()))}, nil
}

// StreamPodSandboxStats returns the list of ListPodSandboxStats in messages of
// bounded size, each with at least one item.
func (s *Server) StreamPodSandboxStats(req *cri.StreamPodSandboxStatsRequest, out cri.RuntimeService_StreamPodSandboxStatsServer) error {
	return sendBatches(s.podStats(req.GetFilter()), func(items []*cri.PodSandboxStats) error {
		return out.Send(&cri.StreamPodSandboxStatsResponse{PodSandboxStats: items})
	})
}

func (s *Server) podStats(f *cri.PodSandboxStatsFilter) iter.Seq[*cri.PodSandboxStats] {
	return func(yield func(*cri.PodSandboxStats) bool) {
		for st := range s.readStats(s.readyPods(matchPodStats(f))) {
			if !yield(stats.Pod(st)) {
				return
			}
		}
	}
}

// ListMetricDescriptors describes every metric that ListPodSandboxMetrics can
// return. The list never changes while the daemon runs, as the CRI demands.
func (s *Server) ListMetricDescriptors(context.Context, *cri.ListMetricDescriptorsRequest) (*cri.ListMetricDescriptorsResponse, error) {
	return &cri.ListMetricDescriptorsResponse{Descriptors: stats.Descriptors()}, nil
}

// ListPodSandboxMetrics returns the metrics of all ready pod sandboxes and of their
// running containers.
//
// Errors: ResourceExhausted if the list is too large for a message.
func (s *Server) ListPodSandboxMetrics(context.Context, *cri.ListPodSandboxMetricsRequest) (*cri.ListPodSandboxMetricsResponse, error) {
	return &cri.ListPodSandboxMetricsResponse{PodMetrics: slices.Collect(s.podMetrics())}, nil
}

// StreamPodSandboxMetrics returns the list of ListPodSandboxMetrics in messages of
// bounded size, each with at least one item.
func (s *Server) StreamPodSandboxMetrics(_ *cri.StreamPodSandboxMetricsRequest, out cri.RuntimeService_StreamPodSandboxMetricsServer) error {
	return sendBatches(s.podMetrics(), func(items []*cri.PodSandboxMetrics) error {
		return out.Send(&cri.StreamPodSandboxMetricsResponse{PodSandboxMetrics: items})
	})
}

func (s *Server) podMetrics() iter.Seq[*cri.PodSandboxMetrics] {
	return func(yield func(*cri.PodSandboxMetrics) bool) {
		metrics := stats.NewMetricsBuilder()
		for st := range s.readStats(s.readyPods(func(*sandbox.Pod) bool { return true })) {
			if !yield(metrics.Pod(st)) {
				return
			}
		}
	}
}

// readyPods returns the ready pods that match.
func (s *Server) readyPods(match func(*sandbox.Pod) bool) []*sandbox.Pod {
	return slices.DeleteFunc(s.cfg.Pods.List(), func(p *sandbox.Pod) bool { return !p.Ready || !match(p) })
}

// readStats reads the stats of pods and of their running containers. It walks the
// list of containers once, regardless of the number of pods.
func (s *Server) readStats(pods []*sandbox.Pod) iter.Seq[stats.PodStats] {
	containers := make(map[string][]container.Stats, len(pods)) // by pod
	for _, p := range pods {
		containers[p.ID] = nil
	}
	inPods := func(c *container.Snapshot) bool { _, ok := containers[c.PodID]; return ok }
	return func(yield func(stats.PodStats) bool) {
		if len(pods) == 0 {
			return
		}
		for c := range s.cfg.Containers.StatsOf(inPods) {
			containers[c.Container.PodID] = append(containers[c.Container.PodID], c)
		}
		for _, st := range s.cfg.Pods.Stats(pods) {
			if !yield(stats.PodStats{Stats: st, Containers: containers[st.Pod.ID]}) {
				return
			}
		}
	}
}
