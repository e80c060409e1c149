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

// interceptUnary runs the handler of a call, checks the size of the answer, and ends
// the call with endCall.
func interceptUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	rpc := path.Base(info.FullMethod)
	ctx = context.WithValue(ctx, rpcKey{}, rpc)
	defer endCall(ctx, rpc, req, time.Now(), &err)
	if resp, err = handler(ctx, req); err != nil {
		return nil, err
	}
	return resp, checkListSize(rpc, resp)
}

// interceptStream is interceptUnary for a call whose answer is a stream. It does not
// check sizes, because sendBatches bounds the messages.
func interceptStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	rpc := path.Base(info.FullMethod)
	ctx := context.WithValue(ss.Context(), rpcKey{}, rpc)
	defer endCall(ctx, rpc, nil, time.Now(), &err)
	return handler(srv, rpcStream{ss, func() context.Context { return ctx }})
}

// endCall recovers from a panic of the handler, maps the error to a gRPC code, and
// logs the call. It must be deferred directly, because it calls recover.
func endCall(ctx context.Context, rpc string, req any, start time.Time, err *error) {
	if r := recover(); r != nil {
		*err = panicError(ctx, r)
	}
	*err = grpcError(*err)
	logCall(ctx, rpc, req, time.Since(start), *err)
}

// rpcStream is a stream whose context carries the name of the RPC.
type rpcStream struct {
	grpc.ServerStream
	context func() context.Context
}

func (s rpcStream) Context() context.Context { return s.context() }

// panicError logs a panic with its stack and returns an error for the client, so
// that a bug in one handler does not end the daemon.
func panicError(ctx context.Context, r any) error {
	logrus.WithContext(ctx).WithField("stack", string(debug.Stack())).Errorf("panic: %v", r)
	return status.Error(codes.Internal, fmt.Sprintf("internal error: %v", r))
}

type rpcKey struct{}

// RPC returns the name of the RPC that ctx belongs to, or "".
func RPC(ctx context.Context) string {
	name, _ := ctx.Value(rpcKey{}).(string)
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
	if r, ok := req.(imageRequest); ok {
		f["image"] = truncateText(r.GetImage().GetImage(), maxLoggedText)
	}
	return f
}
