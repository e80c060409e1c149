package server

import (
	"context"
	"errors"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/criserver/criserver/internal/steps"
)

// stepLog is an observer that keeps the steps.
type stepLog []steps.Info

func (l *stepLog) StepEnded(_ context.Context, i *steps.Info) { *l = append(*l, *i) }

type traceKey struct{}

func TestStepOfCall(t *testing.T) {
	log := &stepLog{}
	s := New(Config{
		Steps: steps.NewRecorder(nil, log),
		RemoteTrace: func(ctx context.Context, header func(string) string) context.Context {
			return context.WithValue(ctx, traceKey{}, header("traceparent")+"/"+header("absent"))
		},
	})
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("traceparent", "parent"))
	info := &grpc.UnaryServerInfo{FullMethod: "/runtime.v1.RuntimeService/StopContainer"}
	failure := errors.New("failure")
	_, err := s.recordUnary(ctx, nil, info, func(ctx context.Context, _ any) (any, error) {
		if got := ctx.Value(traceKey{}); got != "parent/" {
			t.Errorf("trace of the client: got %v, want the header of the call", got)
		}
		_, step := steps.Start(ctx, steps.LockWait)
		step.End(nil)
		return nil, failure
	})
	if !errors.Is(err, failure) {
		t.Errorf("got %v, want the error of the handler", err)
	}
	func() {
		defer func() { _ = recover() }()
		_, _ = s.recordUnary(ctx, nil, info, func(context.Context, any) (any, error) { panic("broken") })
	}()
	if len(*log) != 3 || (*log)[0].Name != steps.LockWait {
		t.Fatalf("steps: got %+v, want the wait and two calls", *log)
	}
	for i, want := range []error{failure, errPanic} {
		step := (*log)[i+1]
		if step.Name != steps.RPC || !errors.Is(step.Err, want) || !slices.Equal(step.Attrs(), []steps.Attr{steps.Method("StopContainer")}) {
			t.Errorf("step of the call: got %s %v with error %v, want %v", step.Name, step.Attrs(), step.Err, want)
		}
	}
}
