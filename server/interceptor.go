package server

import (
	"context"
	"fmt"
	"path"
	"runtime/debug"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// unary gives every call its error code and one line in the log.
func unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	rpc := path.Base(info.FullMethod)
	ctx = context.WithValue(ctx, rpcKey{}, rpc)
	begun := time.Now()
	defer func() {
		if r := recover(); r != nil {
			err = panicked(ctx, r)
		}
		err = grpcError(err)
		logCall(ctx, rpc, req, time.Since(begun), err)
	}()
	if resp, err = next(ctx, req); err != nil {
		return nil, err
	}
	return resp, fits(info.FullMethod, resp)
}

// stream is unary for the calls that answer with a stream.
func stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	rpc := path.Base(info.FullMethod)
	ctx := context.WithValue(ss.Context(), rpcKey{}, rpc)
	begun := time.Now()
	defer func() {
		if r := recover(); r != nil {
			err = panicked(ctx, r)
		}
		err = grpcError(err)
		logCall(ctx, rpc, nil, time.Since(begun), err)
	}()
	return next(srv, namedStream{ss, func() context.Context { return ctx }})
}

// namedStream is a stream whose context tells the name of the call.
type namedStream struct {
	grpc.ServerStream
	context func() context.Context
}

func (s namedStream) Context() context.Context { return s.context() }

// panicked keeps one bad call from ending the daemon. Its stack is logged.
func panicked(ctx context.Context, r any) error {
	logrus.WithContext(ctx).WithField("stack", string(debug.Stack())).Errorf("panic: %v", r)
	return status.Error(codes.Internal, fmt.Sprintf("internal error: %v", r))
}

type rpcKey struct{}

// RPC returns the name of the CRI call that ctx belongs to, or "".
func RPC(ctx context.Context) string {
	name, _ := ctx.Value(rpcKey{}).(string)
	return name
}

// queries begin with these; they change nothing and come many times a second.
var queries = []string{"List", "Stream", "Version", "Status", "RuntimeConfig", "ContainerStats", "ContainerStatus", "PodSandboxStats", "PodSandboxStatus", "ImageStatus", "ImageFsInfo", "ExecSync", "Get"}

func isQuery(rpc string) bool {
	for _, q := range queries {
		if strings.HasPrefix(rpc, q) {
			return true
		}
	}
	return false
}

// logCall writes what was called, on what, how long it took, and how it ended.
// Requests are never logged whole, as they can hold credentials.
func logCall(ctx context.Context, rpc string, req any, took time.Duration, err error) {
	level := logrus.InfoLevel
	if isQuery(rpc) {
		level = logrus.DebugLevel
	}
	code := status.Code(err)
	if serious(code) && level > logrus.WarnLevel {
		level = logrus.WarnLevel
	}
	if !logrus.IsLevelEnabled(level) {
		return
	}
	entry := logrus.WithContext(ctx).WithFields(subject(req)).WithField("duration", took.Round(time.Microsecond).String())
	if err != nil {
		entry = entry.WithField("code", code.String()).WithError(err)
	}
	entry.Log(level, rpc)
}

// serious says whether a failure is more than a client's plain question
// answered with no.
func serious(code codes.Code) bool {
	switch code {
	case codes.OK, codes.NotFound, codes.Canceled, codes.InvalidArgument, codes.Unimplemented:
		return false
	}
	return true
}

// subject finds out what a request is about.
func subject(req any) logrus.Fields {
	f := logrus.Fields{}
	if r, ok := req.(interface{ GetPodSandboxId() string }); ok {
		f["pod"] = clip(r.GetPodSandboxId(), maxLoggedText)
	}
	if r, ok := req.(interface{ GetContainerId() string }); ok {
		f["container"] = clip(r.GetContainerId(), maxLoggedText)
	}
	if r, ok := req.(imageRequest); ok {
		f["image"] = clip(r.GetImage().GetImage(), maxLoggedText)
	}
	return f
}
