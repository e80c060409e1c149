package system

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"

	"github.com/criserver/criserver/test/harness"
)

// executors are the clients of kubectl and crictl.
var executors = map[string]func(address *url.URL) (remotecommand.Executor, error){
	"SPDY": func(u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewSPDYExecutor(&rest.Config{}, http.MethodPost, u)
	},
	"WebSocket": func(u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutor(&rest.Config{}, http.MethodGet, u.String())
	},
}

func parse(t *testing.T, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// stream runs a command with the streams of o and returns its exit code.
func (n *node) stream(ctx context.Context, t *testing.T, transport, id string, o remotecommand.StreamOptions, cmd ...string) (int, error) {
	t.Helper()
	r, err := n.RuntimeService.Exec(t.Context(), &cri.ExecRequest{
		ContainerId: id, Cmd: cmd, Stdin: o.Stdin != nil, Stdout: o.Stdout != nil, Stderr: o.Stderr != nil, Tty: o.Tty,
	})
	if err != nil {
		return 0, err
	}
	return join(ctx, transport, r.GetUrl(), o)
}

// errStreamEnded is the error of writes to the standard input of a stream that has ended.
var errStreamEnded = errors.New("the stream has ended")

// join connects to a stream. Other goroutines call it, so it returns errors.
func join(ctx context.Context, transport, address string, o remotecommand.StreamOptions) (int, error) {
	u, err := url.Parse(address)
	if err != nil {
		return 0, err
	}
	x, err := executors[transport](u)
	if err != nil {
		return 0, err
	}
	err = x.StreamWithContext(ctx, o)
	if in, ok := o.Stdin.(*io.PipeReader); ok {
		_ = in.CloseWithError(errStreamEnded) // nobody reads it any more, so a write would block
	}
	var exit utilexec.CodeExitError
	if errors.As(err, &exit) {
		return exit.Code, nil
	}
	return 0, err
}

// text is a buffer that another goroutine can read.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (x *text) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.Write(p)
}

func (x *text) String() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.b.String()
}

func (x *text) wait(t *testing.T, want string) {
	t.Helper()
	for end := time.Now().Add(harness.Patience(30 * time.Second)); !strings.Contains(x.String(), want); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %q in %q", want, x.String())
		}
	}
}
