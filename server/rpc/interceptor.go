// Package rpc contains the parts that the gRPC servers of the daemon share: interceptors,
// the mapping of errors to gRPC codes, and the stop of a server.
package rpc

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
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// UnaryInterceptor returns an interceptor that runs the handler of a call, checks the
// answer with checkAnswer unless it is nil, recovers from panics, maps errors to gRPC
// codes, and logs the call.
func UnaryInterceptor(checkAnswer func(rpc string, answer any) error) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
		rpc := path.Base(info.FullMethod)
		ctx = context.WithValue(ctx, nameKey{}, rpc)
		defer endCall(ctx, rpc, req, time.Now(), &err)
		if resp, err = handler(ctx, req); err != nil {
			return nil, err
		}
		if checkAnswer != nil {
			err = checkAnswer(rpc, resp)
		}
		return resp, err
	}
}

// InterceptStream does the same as the interceptor of UnaryInterceptor for a call whose
// answer is a stream.
func InterceptStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	rpc := path.Base(info.FullMethod)
	ctx := context.WithValue(ss.Context(), nameKey{}, rpc)
	defer endCall(ctx, rpc, nil, time.Now(), &err)
	return handler(srv, namedStream{ss, func() context.Context { return ctx }})
}

// endCall recovers from a panic of the handler, maps the error to a gRPC code, and
// logs the call. It must be deferred directly, because it calls recover.
func endCall(ctx context.Context, rpc string, req any, start time.Time, err *error) {
	if r := recover(); r != nil {
		*err = panicError(ctx, r)
	}
	*err = Error(*err)
	logCall(ctx, rpc, req, time.Since(start), *err)
}

// namedStream is a stream whose context carries the name of the RPC.
type namedStream struct {
	grpc.ServerStream
	context func() context.Context
}

func (s namedStream) Context() context.Context { return s.context() }

// panicError logs a panic with its stack and returns an error for the client, so
// that a bug in one handler does not end the daemon.
func panicError(ctx context.Context, r any) error {
	logrus.WithContext(ctx).WithField("stack", string(debug.Stack())).Errorf("panic: %v", r)
	return status.Error(codes.Internal, fmt.Sprintf("internal error: %v", r))
}

type nameKey struct{}

// Name returns the name of the RPC that ctx belongs to, or "".
func Name(ctx context.Context) string {
	name, _ := ctx.Value(nameKey{}).(string)
	return name
}

// queryPrefixes are the beginnings of the names of RPCs that change nothing.
// Clients call these RPCs many times a second.
var queryPrefixes = []string{
	"List", "Stream", "Version", "Status", "RuntimeConfig", "ContainerStats", "ContainerStatus", "PodSandboxStats", "PodSandboxStatus",
	"ImageStatus", "ImageFsInfo", "ExecSync", "Get",
}

func isQuery(rpc string) bool {
	for _, prefix := range queryPrefixes {
		if strings.HasPrefix(rpc, prefix) {
			return true
		}
	}
	return false
}

// logCall logs the name of an RPC, the objects of the request, the duration and
// the error. It logs queries at debug and other RPCs at info, and the failures of
// both at warning. It never logs a complete request, because requests can contain
// credentials.
func logCall(ctx context.Context, rpc string, req any, duration time.Duration, err error) {
	level := logrus.InfoLevel
	if isQuery(rpc) {
		level = logrus.DebugLevel
	}
	code := status.Code(err)
	if isFailure(code) && level > logrus.WarnLevel {
		level = logrus.WarnLevel
	}
	if !logrus.IsLevelEnabled(level) {
		return
	}
	entry := logrus.WithContext(ctx).WithFields(requestFields(req)).WithField("duration", duration.Round(time.Microsecond).String())
	if err != nil {
		entry = entry.WithField("code", code.String()).WithError(err)
	}
	entry.Log(level, rpc)
}

// isFailure returns false for the codes that are the regular answer to a request
// about an object that does not exist, to a wrong request, or to a client that
// left.
func isFailure(code codes.Code) bool {
	switch code {
	case codes.OK, codes.NotFound, codes.Canceled, codes.InvalidArgument, codes.Unimplemented:
		return false
	}
	return true
}

// requestFields returns the pod, container and image of a request as log fields.
func requestFields(req any) logrus.Fields {
	f := logrus.Fields{}
	if r, ok := req.(interface{ GetPodSandboxId() string }); ok {
		f["pod"] = truncateText(r.GetPodSandboxId(), maxLoggedText)
	}
	if r, ok := req.(interface{ GetContainerId() string }); ok {
		f["container"] = truncateText(r.GetContainerId(), maxLoggedText)
	}
	if r, ok := req.(interface{ GetImage() *cri.ImageSpec }); ok {
		f["image"] = truncateText(r.GetImage().GetImage(), maxLoggedText)
	}
	return f
}
