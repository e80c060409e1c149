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
	for fig := range s.measure([]*sandbox.Pod{pod}) {
		return &cri.PodSandboxStatsResponse{Stats: podFigures(fig)}, nil
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
	return func(yield func(*cri.PodSandboxStats) bool) {
		for fig := range s.measure(s.readyPods(podStatsFilter(f))) {
			if !yield(podFigures(fig)) {
				return
			}
		}
	}
}

func (s *Server) readyPods(match func(*sandbox.Pod) bool) []*sandbox.Pod {
	return slices.DeleteFunc(s.cfg.Pods.List(), func(p *sandbox.Pod) bool { return !p.Ready || !match(p) })
}

// figures are those of a pod and of its running containers.
type figures struct {
	sandbox.Stats
	containers []container.Stats
}

// measure goes through the containers once, however many pods there are.
func (s *Server) measure(pods []*sandbox.Pod) iter.Seq[figures] {
	inPod := make(map[string][]container.Stats, len(pods))
	for _, p := range pods {
		inPod[p.ID] = nil
	}
	wanted := func(c *container.Snapshot) bool { _, ok := inPod[c.PodID]; return ok }
	return func(yield func(figures) bool) {
		if len(pods) == 0 {
			return
		}
		for c := range s.cfg.Containers.StatsOf(wanted) {
			inPod[c.Container.PodID] = append(inPod[c.Container.PodID], c)
		}
		for _, st := range s.cfg.Pods.Stats(pods) {
			if !yield(figures{st, inPod[st.Pod.ID]}) {
				return
			}
		}
	}
}

func podFigures(s figures) *cri.PodSandboxStats {
	p := s.Pod
	l := &cri.LinuxPodSandboxStats{Network: networkUsage(s.Stats)}
	for _, c := range s.containers {
		l.Containers = append(l.Containers, containerStats(c))
	}
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

func linkUsage(l sandbox.Link) *cri.NetworkInterfaceUsage {
	return &cri.NetworkInterfaceUsage{
		Name: l.Name, RxBytes: value(l.RxBytes), RxErrors: value(l.RxErrors), TxBytes: value(l.TxBytes), TxErrors: value(l.TxErrors),
	}
}
