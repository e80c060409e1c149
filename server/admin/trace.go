package admin

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/steps"
)

// Timelines returns the timelines of pods and containers. *steps.Timelines implements it.
type Timelines interface {
	Get(reference string) (steps.Timeline, error)
}

// GetTimeline returns the timeline of a pod or container.
//
// Errors: NotFound, and InvalidArgument if the reference is empty or ambiguous.
func (s *Server) GetTimeline(_ context.Context, req *adminv1.GetTimelineRequest) (*adminv1.GetTimelineResponse, error) {
	t, err := s.cfg.Timelines.Get(req.GetReference())
	if err != nil {
		return nil, fmt.Errorf("reference: %w", err)
	}
	return &adminv1.GetTimelineResponse{Timeline: timelineMessage(t)}, nil
}

func timelineMessage(t steps.Timeline) *adminv1.Timeline {
	m := &adminv1.Timeline{
		PodId: t.Pod, ContainerId: t.Container, Name: t.Name, BeginTime: timestamppb.New(t.Begin), Removed: t.Removed,
		DroppedSteps: int32(t.Dropped), //nolint:gosec // a timeline has few steps
	}
	for _, e := range t.Steps {
		m.Steps = append(m.Steps, stepMessage(e))
	}
	for _, c := range t.Containers {
		m.Containers = append(m.Containers, timelineMessage(c))
	}
	return m
}

func stepMessage(e steps.Entry) *adminv1.TimelineStep {
	m := &adminv1.TimelineStep{
		Name: e.Name, Parent: int32(e.Parent), //nolint:gosec // a timeline has few steps
		Start: durationpb.New(e.Start), Duration: durationpb.New(e.Duration),
		Running: e.Running, Waits: e.Waits, ErrorClass: string(e.Class), Error: e.Error,
	}
	for _, a := range e.Attrs {
		m.Attributes = append(m.Attributes, &adminv1.TimelineAttribute{Key: a.Key, Value: a.Value})
	}
	return m
}
