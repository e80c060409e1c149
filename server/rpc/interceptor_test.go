package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/criserver/criserver/image"
)

func TestErrorCodes(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want codes.Code
	}{
		{nil, codes.OK},
		{fmt.Errorf("pod %q: %w", "x", errdefs.ErrNotFound), codes.NotFound},
		{fmt.Errorf("name: %w", errdefs.ErrInvalidArgument), codes.InvalidArgument},
		{errors.Join(errors.New("first"), errdefs.ErrFailedPrecondition), codes.FailedPrecondition},
		{fmt.Errorf("exec: %w", context.DeadlineExceeded), codes.DeadlineExceeded},
		{fmt.Errorf("wait: %w", context.Canceled), codes.Canceled},
		{fmt.Errorf("%w: dial failed: %w", image.ErrRegistryUnavailable, errdefs.ErrUnavailable), codes.Unknown},
		{fmt.Errorf("%w: unknown key", image.ErrSignatureValidationFailed), codes.Unknown},
		{errors.New("anything"), codes.Unknown},
		{status.Error(codes.Aborted, "gRPC error"), codes.Aborted},
	} {
		if got := status.Code(Error(tc.err)); got != tc.want {
			t.Errorf("%v: code %s, want %s", tc.err, got, tc.want)
		}
	}
}

func TestTruncateText(t *testing.T) {
	err := Error(fmt.Errorf("pod %q: %w", strings.Repeat("é", 1<<20), errdefs.ErrNotFound))
	msg := status.Convert(err).Message()
	if len(msg) > maxErrorText || !utf8.ValidString(msg) || !strings.HasPrefix(msg, `pod "é`) || !strings.HasSuffix(msg, `é": not found`) {
		t.Errorf("message of %d bytes: %.20q", len(msg), msg)
	}
	if code := status.Code(err); code != codes.NotFound {
		t.Errorf("code %s", code)
	}
}

func TestPanicInHandler(t *testing.T) {
	_, err := UnaryInterceptor(nil)(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/runtime.v1.RuntimeService/Version"}, func(context.Context, any) (any, error) {
		panic("broken")
	})
	if status.Code(err) != codes.Internal {
		t.Errorf("got %v, want Internal", err)
	}
}

// rpcHook records the RPC and the message of each log line.
type rpcHook struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (*rpcHook) Levels() []logrus.Level { return logrus.AllLevels }

func (h *rpcHook) Fire(e *logrus.Entry) error {
	if e.Context != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.lines = append(h.lines, Name(e.Context)+": "+e.Message)
	}
	return nil
}

type fakeStream struct{ grpc.ServerStream }

func (fakeStream) Context() context.Context { return context.Background() }

// TestLogLinesCarryRPC checks that the context of a handler carries the name of the
// RPC, and that the log lines of the interceptor and of a panic do.
func TestLogLinesCarryRPC(t *testing.T) {
	hook := &rpcHook{}
	before := logrus.StandardLogger().ReplaceHooks(logrus.LevelHooks{})
	logrus.AddHook(hook)
	defer logrus.StandardLogger().ReplaceHooks(before)
	fail := func(ctx context.Context) {
		logrus.WithContext(ctx).Warn("log line of the handler")
		panic("broken")
	}
	for name, call := range map[string]func() error{
		"StopContainer": func() error {
			_, err := UnaryInterceptor(nil)(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: "/runtime.v1.RuntimeService/StopContainer"},
				func(ctx context.Context, _ any) (any, error) { fail(ctx); return nil, nil })
			return err
		},
		"StreamContainers": func() error {
			return InterceptStream(nil, fakeStream{}, &grpc.StreamServerInfo{FullMethod: "/runtime.v1.RuntimeService/StreamContainers"},
				func(_ any, ss grpc.ServerStream) error { fail(ss.Context()); return nil })
		},
	} {
		hook.lines = nil
		if err := call(); status.Code(err) != codes.Internal {
			t.Errorf("%s: %v", name, err)
		}
		want := []string{name + ": log line of the handler", name + ": panic: broken", name + ": " + name}
		if !slices.Equal(hook.lines, want) {
			t.Errorf("%s: log lines %q", name, hook.lines)
		}
	}
}
