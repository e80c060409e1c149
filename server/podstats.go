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
	"github.com/criserver/criserver/sandbox/namespace"
)

// PodSandboxStats returns the figures of one pod and its containers.
func (s *Server) PodSandboxStats(_ context.Context, req *cri.PodSandboxStatsRequest) (*cri.PodSandboxStatsResponse, error) {
	if req.GetPodSandboxId() == "" {
		return nil, missing("pod_sandbox_id")
	}
	pod, err := s.cfg.Pods.Get(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	for st := range s.statsOf([]*sandbox.Pod{pod}) {
		return &cri.PodSandboxStatsResponse{Stats: st}, nil
	}
	return nil, fmt.Errorf("stats of pod sandbox %q: %w", pod.ID, errdefs.ErrNotFound)
}

// ListPodSandboxStats returns the figures of the ready pods that the filter
// lets through; the others use nothing any more.
func (s *Server) ListPodSandboxStats(_ context.Context, req *cri.ListPodSandboxStatsRequest) (*cri.ListPodSandboxStatsResponse, error) {
	return &cri.ListPodSandboxStatsResponse{Stats: slices.Collect(s.podStats(req.GetFilter()))}, nil
}

// StreamPodSandboxStats is ListPodSandboxStats in messages of bounded size.
func (s *Server) StreamPodSandboxStats(req *cri.StreamPodSandboxStatsRequest, out cri.RuntimeService_StreamPodSandboxStatsServer) error {
	return batches(s.podStats(req.GetFilter()), func(items []*cri.PodSandboxStats) error {
		return out.Send(&cri.StreamPodSandboxStatsResponse{PodSandboxStats: items})
	})
}

func (s *Server) podStats(f *cri.PodSandboxStatsFilter) iter.Seq[*cri.PodSandboxStats] {
	match := podStatsFilter(f)
	var pods []*sandbox.Pod
	for _, p := range s.cfg.Pods.List() {
		if p.Ready && match(p) {
			pods = append(pods, p)
		}
	}
	return s.statsOf(pods)
}

// statsOf goes through the containers once, however many pods there are.
func (s *Server) statsOf(pods []*sandbox.Pod) iter.Seq[*cri.PodSandboxStats] {
	inPod := make(map[string][]*cri.ContainerStats, len(pods))
	for _, p := range pods {
		inPod[p.ID] = nil
	}
	wanted := func(c *container.Snapshot) bool { _, ok := inPod[c.PodID]; return ok }
	return func(yield func(*cri.PodSandboxStats) bool) {
		if len(pods) == 0 {
			return
		}
		for c := range s.cfg.Containers.StatsOf(wanted) {
			inPod[c.Container.PodID] = append(inPod[c.Container.PodID], containerStats(c))
		}
		for _, st := range s.cfg.Pods.Stats(pods) {
			if !yield(podFigures(st, inPod[st.Pod.ID])) {
				return
			}
		}
	}
}

func podFigures(s sandbox.Stats, containers []*cri.ContainerStats) *cri.PodSandboxStats {
	p := s.Pod
	l := &cri.LinuxPodSandboxStats{Network: networkUsage(s), Containers: containers}
	if u := s.Usage; u != nil {
		l.Cpu, l.Memory, l.Io = cpuUsage(u), memoryUsage(u), ioUsage(u)
		l.Process = &cri.ProcessUsage{Timestamp: s.Time.UnixNano(), ProcessCount: value(uint64(s.Processes))}
	}
	return &cri.PodSandboxStats{
		Attributes: &cri.PodSandboxAttributes{
			Id: p.ID, Metadata: p.Config.GetMetadata(), Labels: p.Config.GetLabels(), Annotations: p.Config.GetAnnotations(),
		},
		Linux: l,
	}
}

// networkUsage is nil for a pod with the host's network: what goes through that
// is not the pod's.
func networkUsage(s sandbox.Stats) *cri.NetworkUsage {
	if s.Links == nil {
		return nil
	}
	n := &cri.NetworkUsage{Timestamp: s.Time.UnixNano()}
	for _, l := range s.Links {
		if l.Name == sandbox.DefaultLink {
			n.DefaultInterface = linkUsage(l)
			continue
		}
		n.Interfaces = append(n.Interfaces, linkUsage(l))
	}
	return n
}

func linkUsage(l namespace.Link) *cri.NetworkInterfaceUsage {
	return &cri.NetworkInterfaceUsage{
		Name: l.Name, RxBytes: value(l.RxBytes), RxErrors: value(l.RxErrors), TxBytes: value(l.TxBytes), TxErrors: value(l.TxErrors),
	}
}
