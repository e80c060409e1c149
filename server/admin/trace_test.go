package admin

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/steps"
)

// timelines has the timeline of the pod "web".
type timelines struct{ steps.Timeline }

func (l timelines) Get(reference string) (steps.Timeline, error) {
	if reference != "default/web" {
		return steps.Timeline{}, fmt.Errorf("no timeline: %w", errdefs.ErrNotFound)
	}
	return l.Timeline, nil
}

func TestGetTimeline(t *testing.T) {
	begin := time.Date(2026, 11, 30, 12, 0, 0, 5, time.UTC)
	s := New(Config{Timelines: timelines{steps.Timeline{
		Object: steps.Object{Pod: "p1", Name: "default/web"}, Begin: begin, Removed: true, Dropped: 3,
		Steps: []steps.Entry{{
			Name: "cni.add", Parent: -1, Start: time.Millisecond, Duration: time.Second, Running: true, Waits: true,
			Class: steps.ClassTimeout, Error: "late", Attrs: []steps.Attr{steps.Network("pods")},
		}},
		Containers: []steps.Timeline{{Object: steps.Object{Pod: "p1", Container: "c1", Name: "app"}, Begin: begin}},
	}}})
	got, err := s.GetTimeline(t.Context(), &adminv1.GetTimelineRequest{Reference: "default/web"})
	if err != nil {
		t.Fatal(err)
	}
	want := &adminv1.Timeline{
		PodId: "p1", Name: "default/web", BeginTime: timestamppb.New(begin), Removed: true, DroppedSteps: 3,
		Steps: []*adminv1.TimelineStep{{
			Name: "cni.add", Parent: -1, Start: durationpb.New(time.Millisecond), Duration: durationpb.New(time.Second), Running: true, Waits: true,
			ErrorClass: "timeout", Error: "late", Attributes: []*adminv1.TimelineAttribute{{Key: "network", Value: "pods"}},
		}},
		Containers: []*adminv1.Timeline{{PodId: "p1", ContainerId: "c1", Name: "app", BeginTime: timestamppb.New(begin)}},
	}
	if !proto.Equal(got.GetTimeline(), want) {
		t.Errorf("got %v, want %v", got.GetTimeline(), want)
	}
	if _, err := s.GetTimeline(t.Context(), &adminv1.GetTimelineRequest{Reference: "other"}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("unknown pod: got error %v, want ErrNotFound", err)
	}
}
