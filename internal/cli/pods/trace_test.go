package pods

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/internal/cli/clitest"
	"github.com/criserver/criserver/internal/cli/command"
	"github.com/criserver/criserver/internal/steps"
)

// runCommand runs a command of this package, and returns its exit code and its output.
func runCommand(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return clitest.Run(t, Commands, strings.NewReader(""), args...)
}

func TestReadTimeline(t *testing.T) {
	begin := time.Date(2026, 11, 30, 12, 0, 0, 5, time.UTC)
	got := readTimeline(&adminv1.Timeline{
		PodId: "p1", Name: "default/web", BeginTime: timestamppb.New(begin), Removed: true, DroppedSteps: 3,
		Steps: []*adminv1.TimelineStep{{
			Name: "cni.add", Parent: -1, Start: durationpb.New(time.Millisecond), Duration: durationpb.New(time.Second), Running: true, Waits: true,
			ErrorClass: "timeout", Error: "late", Attributes: []*adminv1.TimelineAttribute{{Key: "network", Value: "pods"}},
		}},
		Containers: []*adminv1.Timeline{{PodId: "p1", ContainerId: "c1", Name: "app", BeginTime: timestamppb.New(begin)}},
	})
	want := steps.Timeline{
		Object: steps.Object{Pod: "p1", Name: "default/web"}, Begin: begin, Removed: true, Dropped: 3,
		Steps: []steps.Entry{{
			Name: "cni.add", Parent: -1, Start: time.Millisecond, Duration: time.Second, Running: true, Waits: true,
			Class: steps.ClassTimeout, Error: "late", Attrs: []steps.Attr{steps.Network("pods")},
		}},
		Containers: []steps.Timeline{{Object: steps.Object{Pod: "p1", Container: "c1", Name: "app"}, Begin: begin}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestTraceArguments(t *testing.T) {
	for _, args := range [][]string{{"trace"}, {"trace", "a", "b"}, {"trace", "a", "--svg", "-o", "json"}, {"trace", "a", "-o", "xml"}} {
		if code, _, stderr := runCommand(t, args...); code != command.ExitUsage {
			t.Errorf("%v: exit code %d with %q, want %d", args, code, stderr, command.ExitUsage)
		}
	}
}
