package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/server/metrics"
)

// callLog is a CallObserver that records calls.
type callLog struct{ lines []string }

func (l *callLog) CallStarted(rpc string) { l.lines = append(l.lines, rpc+" started") }
func (l *callLog) CallEnded(rpc string, code codes.Code, _ time.Duration) {
	l.lines = append(l.lines, fmt.Sprintf("%s %s", rpc, code))
}

// intercept calls a handler through the interceptors of a server, as gRPC does.
func (s *Server) intercept(ctx context.Context, rpc string, handler grpc.UnaryHandler) error {
	unary, _ := s.interceptors()
	info := &grpc.UnaryServerInfo{FullMethod: "/runtime.v1.RuntimeService/" + rpc}
	for _, next := range slices.Backward(unary) {
		inner := handler
		handler = func(ctx context.Context, req any) (any, error) { return next(ctx, req, info, inner) }
	}
	_, err := handler(ctx, nil)
	return err
}

// TestCallObserver checks that the observer gets the code that the client gets, also after a panic.
func TestCallObserver(t *testing.T) {
	for name, tc := range map[string]struct {
		handler grpc.UnaryHandler
		want    codes.Code
	}{
		"success":   {func(context.Context, any) (any, error) { return nil, nil }, codes.OK},
		"not found": {func(context.Context, any) (any, error) { return nil, fmt.Errorf("pod: %w", errdefs.ErrNotFound) }, codes.NotFound},
		"unknown":   {func(context.Context, any) (any, error) { return nil, errors.New("failed") }, codes.Unknown},
		"panic":     {func(context.Context, any) (any, error) { panic("broken") }, codes.Internal},
	} {
		log := &callLog{}
		err := New(Config{Calls: log}).intercept(t.Context(), "Status", tc.handler)
		if status.Code(err) != tc.want || !slices.Equal(log.lines, []string{"Status started", "Status " + tc.want.String()}) {
			t.Errorf("%s: the client gets %v, the observer %q, want %s", name, err, log.lines, tc.want)
		}
	}
	if err := New(Config{}).intercept(t.Context(), "Status", func(context.Context, any) (any, error) { return nil, nil }); err != nil {
		t.Errorf("without an observer: got %v", err)
	}
}

type fakeStream struct{ grpc.ServerStream }

func TestStreamObserver(t *testing.T) {
	log := &callLog{}
	err := New(Config{Calls: log}).observeStream(nil, fakeStream{}, &grpc.StreamServerInfo{FullMethod: "/runtime.v1.RuntimeService/StreamContainers"},
		func(any, grpc.ServerStream) error { return status.Error(codes.ResourceExhausted, "too slow") })
	if want := []string{"StreamContainers started", "StreamContainers ResourceExhausted"}; err == nil || !slices.Equal(log.lines, want) {
		t.Errorf("got %v and %q, want an error and %q", err, log.lines, want)
	}
}

// BenchmarkCall measures the time that the interceptors add to a call without and with metrics.
func BenchmarkCall(b *testing.B) {
	m := metrics.New("1.0.0")
	for name, cfg := range map[string]Config{"without metrics": {Steps: steps.NewRecorder(nil)}, "with metrics": {Steps: steps.NewRecorder(nil, m), Calls: m}} {
		s := New(cfg)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			unary, _ := s.interceptors()
			info := &grpc.UnaryServerInfo{FullMethod: "/runtime.v1.RuntimeService/Version"}
			handler := func(context.Context, any) (any, error) { return nil, nil }
			for _, next := range slices.Backward(unary) {
				inner := handler
				handler = func(ctx context.Context, req any) (any, error) { return next(ctx, req, info, inner) }
			}
			for b.Loop() {
				if _, err := handler(context.Background(), nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
