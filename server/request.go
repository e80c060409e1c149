package server

import (
	"math"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/sandbox"
)

// missing returns the error for a request in which a required field is not set.
func missing(field string) error {
	return status.Errorf(codes.InvalidArgument, "%s must be given", field)
}

// checkRuntimeHandler returns InvalidArgument if an ImageSpec names an unknown
// runtime handler, because the CRI says to reject such requests
// (ImageSpec.runtime_handler). The name has no other effect: all handlers use the
// same images.
func (s *Server) checkRuntimeHandler(field string, spec *cri.ImageSpec) error {
	name := spec.GetRuntimeHandler()
	if name == "" {
		return nil
	}
	var names []string
	for _, h := range s.cfg.Runtimes.Handlers() {
		if h.GetName() == name {
			return nil
		}
		if h.GetName() != "" { // the list has the default handler under its name, too
			names = append(names, h.GetName())
		}
	}
	return status.Errorf(codes.InvalidArgument, "%s.runtime_handler %q is unknown; there are %q", field, name, names)
}

// secondsToDuration returns n seconds. It returns 0 for a negative n, and the
// longest Duration for an n that a Duration cannot hold.
func secondsToDuration(n int64) time.Duration {
	const longest = math.MaxInt64 / int64(time.Second)
	if n > longest {
		return math.MaxInt64
	}
	return time.Duration(max(n, 0)) * time.Second
}

// matchPod returns a function that reports whether a pod fulfils all conditions of
// the filter. The id of the filter may be a prefix.
func matchPod(f *cri.PodSandboxFilter) func(*sandbox.Pod) bool {
	return func(p *sandbox.Pod) bool {
		return strings.HasPrefix(p.ID, f.GetId()) &&
			(f.GetState() == nil || f.GetState().GetState() == podState(p)) &&
			matchLabels(f.GetLabelSelector(), p.Config.GetLabels())
	}
}

// matchContainer returns a function that reports whether a container fulfils all
// conditions of the filter. The ids of the filter may be prefixes.
func matchContainer(f *cri.ContainerFilter) func(*container.Snapshot) bool {
	return func(c *container.Snapshot) bool {
		return strings.HasPrefix(c.ID, f.GetId()) &&
			strings.HasPrefix(c.PodID, f.GetPodSandboxId()) &&
			(f.GetState() == nil || f.GetState().GetState() == containerState(c)) &&
			matchLabels(f.GetLabelSelector(), c.Config.GetLabels())
	}
}

func matchPodStats(f *cri.PodSandboxStatsFilter) func(*sandbox.Pod) bool {
	return matchPod(&cri.PodSandboxFilter{Id: f.GetId(), LabelSelector: f.GetLabelSelector()})
}

func matchContainerStats(f *cri.ContainerStatsFilter) func(*container.Snapshot) bool {
	return matchContainer(&cri.ContainerFilter{Id: f.GetId(), PodSandboxId: f.GetPodSandboxId(), LabelSelector: f.GetLabelSelector()})
}

// matchLabels reports whether labels has every label of the selector.
func matchLabels(selector, labels map[string]string) bool {
	for key, want := range selector {
		if value, ok := labels[key]; !ok || value != want {
			return false
		}
	}
	return true
}
