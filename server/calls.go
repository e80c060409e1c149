package server

import (
	"context"
	"path"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/criserver/criserver/server/rpc"
)

// CallObserver is notified of each call, for metrics. Its methods are called on the path of the call and must not wait.
type CallObserver interface {
	CallStarted(rpc string)
	// CallEnded is called with the code that the client gets. Every call that has started ends.
	CallEnded(rpc string, code codes.Code, d time.Duration)
}

// interceptors returns the interceptors of calls in their order.
func (s *Server) interceptors() ([]grpc.UnaryServerInterceptor, []grpc.StreamServerInterceptor) {
	unary := []grpc.UnaryServerInterceptor{rpc.UnaryInterceptor(checkListSize), s.recordUnary}
	stream := []grpc.StreamServerInterceptor{rpc.InterceptStream, s.recordStream} // does not check sizes, because sendBatches bounds the messages
	if s.cfg.Calls != nil {
		// rpc.UnaryInterceptor recovers from panics, so observeUnary comes before it.
		unary, stream = slices.Insert(unary, 0, s.observeUnary), slices.Insert(stream, 0, s.observeStream)
	}
	return unary, stream
}

// observeUnary notifies the observer of a call.
func (s *Server) observeUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	name, start := path.Base(info.FullMethod), time.Now()
	s.cfg.Calls.CallStarted(name)
	resp, err := handler(ctx, req)
	s.cfg.Calls.CallEnded(name, status.Code(err), time.Since(start))
	return resp, err
}

// observeStream is observeUnary for a call whose answer is a stream.
func (s *Server) observeStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	name, start := path.Base(info.FullMethod), time.Now()
	s.cfg.Calls.CallStarted(name)
	err := handler(srv, ss)
	s.cfg.Calls.CallEnded(name, status.Code(err), time.Since(start))
	return err
}
