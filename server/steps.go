package server

import (
	"context"
	"errors"
	"path"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/criserver/criserver/internal/steps"
)

// errPanic is the error of the step of a call whose handler panics.
var errPanic = errors.New("the handler of the call panicked")

// recordUnary records a call as a step, which contains the steps of the operation.
func (s *Server) recordUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	ctx, step := s.startStep(ctx, info.FullMethod)
	err = errPanic
	defer step.EndWith(&err)
	resp, err = handler(ctx, req)
	return resp, err
}

// recordStream is recordUnary for a call whose answer is a stream.
func (s *Server) recordStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	ctx, step := s.startStep(ss.Context(), info.FullMethod)
	err = errPanic
	defer step.EndWith(&err)
	err = handler(srv, recordedStream{ss, func() context.Context { return ctx }})
	return err
}

// startStep begins the step of a call. The step continues the trace of the client.
func (s *Server) startStep(ctx context.Context, method string) (context.Context, *steps.Step) {
	if s.cfg.RemoteTrace != nil {
		ctx = s.cfg.RemoteTrace(ctx, func(key string) string {
			if values := metadata.ValueFromIncomingContext(ctx, key); len(values) > 0 {
				return values[0]
			}
			return ""
		})
	}
	return s.cfg.Steps.Start(ctx, steps.RPC, steps.Method(path.Base(method)))
}

// recordedStream is a stream whose context contains the step of the call.
type recordedStream struct {
	grpc.ServerStream
	context func() context.Context
}

func (s recordedStream) Context() context.Context { return s.context() }
