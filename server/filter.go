package server

import (
	"strings"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/sandbox"
)

// The conditions of a filter all have to hold; an id may be shortened.

func podFilter(f *cri.PodSandboxFilter) func(*sandbox.Pod) bool {
	return func(p *sandbox.Pod) bool {
		return strings.HasPrefix(p.ID, f.GetId()) &&
			(f.GetState() == nil || f.GetState().GetState() == podState(p)) &&
			selected(f.GetLabelSelector(), p.Config.GetLabels())
	}
}

func containerFilter(f *cri.ContainerFilter) func(*container.Snapshot) bool {
	return func(c *container.Snapshot) bool {
		return strings.HasPrefix(c.ID, f.GetId()) &&
			strings.HasPrefix(c.PodID, f.GetPodSandboxId()) &&
			(f.GetState() == nil || f.GetState().GetState() == containerState(c)) &&
			selected(f.GetLabelSelector(), c.Config.GetLabels())
	}
}

func podStatsFilter(f *cri.PodSandboxStatsFilter) func(*sandbox.Pod) bool {
	return podFilter(&cri.PodSandboxFilter{Id: f.GetId(), LabelSelector: f.GetLabelSelector()})
}

func statsFilter(f *cri.ContainerStatsFilter) func(*container.Snapshot) bool {
	return containerFilter(&cri.ContainerFilter{Id: f.GetId(), PodSandboxId: f.GetPodSandboxId(), LabelSelector: f.GetLabelSelector()})
}

func selected(selector, labels map[string]string) bool {
	for k, want := range selector {
		if got, ok := labels[k]; !ok || got != want {
			return false
		}
	}
	return true
}
