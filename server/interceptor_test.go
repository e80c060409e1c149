package server

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// callsOfLog notes in the course of which call each line of the log is written.
type callsOfLog struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (*callsOfLog) Levels() []logrus.Level { return logrus.AllLevels }

func (l *callsOfLog) Fire(e *logrus.Entry) error {
	if e.Context != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lines = append(l.lines, RPC(e.Context)+": "+e.Message)
	}
	return nil
}

type fakeStream struct{ grpc.ServerStream }

func (fakeStream) Context() context.Context { return context.Background() }

// Both kinds of calls tell their name to who logs in their course, to the line
// about the call itself and to that of a panic.
func TestLinesOfTheLogKnowTheirCall(t *testing.T) {
	log := &callsOfLog{}
	before := logrus.StandardLogger().ReplaceHooks(logrus.LevelHooks{})
	logrus.AddHook(log)
	defer logrus.StandardLogger().ReplaceHooks(before)
	inside := func(ctx context.Context) {
		logrus.WithContext(ctx).Warn("in its course")
		panic("broken")
	}
	for name, call := range map[string]func() error{
		"StopContainer": func() error {
			_, err := unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/runtime.v1.RuntimeService/StopContainer"},
				func(ctx context.Context, _ any) (any, error) { inside(ctx); return nil, nil })
			return err
		},
		"StreamContainers": func() error {
			return stream(nil, fakeStream{}, &grpc.StreamServerInfo{FullMethod: "/runtime.v1.RuntimeService/StreamContainers"},
				func(_ any, ss grpc.ServerStream) error { inside(ss.Context()); return nil })
		},
	} {
		log.lines = nil
		if err := call(); status.Code(err) != codes.Internal {
			t.Errorf("%s: %v", name, err)
		}
		want := []string{name + ": in its course", name + ": panic: broken", name + ": " + name}
		if !slices.Equal(log.lines, want) {
			t.Errorf("%s: the log has %q", name, log.lines)
		}
	}
}
