package systemd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
	"github.com/criserver/criserver/test/harness/criclient"
)

// client is the CRI client of the daemon.
type client struct{ *criclient.Client }

// retries is the gRPC configuration with which calls wait for the next daemon, and
// are repeated if the connection to the last daemon ends.
const retries = `{"methodConfig": [{
	"name": [{"service": "runtime.v1.RuntimeService"}, {"service": "runtime.v1.ImageService"}],
	"waitForReady": true,
	"retryPolicy": {
		"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE"]
	}
}]}`

func dial(t *testing.T) *client {
	t.Helper()
	c, err := criclient.Dial(socket, grpc.WithDefaultServiceConfig(retries),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.5, MaxDelay: time.Second},
		}))
	if err != nil {
		t.Fatal(err)
	}
	c.Timeout, c.Diagnostics = callTimeout, journalTail
	return &client{c}
}

// hasUserNamespaces reports whether pods can have user namespaces. It fails the test
// unless this is the case exactly if the kernel supports id-mapped tmpfs mounts.
func (c *client) hasUserNamespaces(t *testing.T) bool {
	t.Helper()
	must, err := harness.MapsTmpfs()
	if err != nil {
		t.Fatal(err)
	}
	has := false
	ask := func() error {
		r, err := c.RuntimeService.Status(limited(t), &cri.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range r.GetRuntimeHandlers() {
			has = has || h.GetName() == "" && h.GetFeatures().GetUserNamespaces()
		}
		if !has {
			return errors.New("the default handler has no user namespaces")
		}
		return nil
	}
	if must {
		eventually(t, 10*time.Second, ask) // the daemon tries the handlers while it serves
	} else if ask() == nil {
		t.Error("the daemon offers user namespaces, but the kernel does not support id-mapped tmpfs mounts")
	}
	return has
}

// callTimeout limits each call, multiplied by the factor of harness.Patience.
const callTimeout = 30 * time.Second

// limited returns the context of one call.
func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience(callTimeout))
	t.Cleanup(cancel)
	return ctx
}

// pod is a pod sandbox that a test created.
type pod = criclient.Pod

func podConfig(name string) *cri.PodSandboxConfig {
	return criclient.PodConfig("systemd", name, filepath.Join(stateDir, "logs", name))
}

func containerConfig(p *pod, name string, command ...string) *cri.ContainerConfig {
	return p.ContainerConfig(name, busybox, command...)
}

// runPod runs a pod without logs of earlier runs.
func (c *client) runPod(t *testing.T, config *cri.PodSandboxConfig) *pod {
	t.Helper()
	if err := os.RemoveAll(config.GetLogDirectory()); err != nil {
		t.Fatal(err)
	}
	return c.RunPod(t, config)
}

// output is a buffer for a stream that another goroutine may read.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// say attaches to a container, sends a line, and waits for the reply.
func (c *client) say(t *testing.T, id string, tty bool, line, reply string) {
	t.Helper()
	r, err := c.RuntimeService.Attach(limited(t), &cri.AttachRequest{ContainerId: id, Stdin: true, Stdout: true, Tty: tty})
	if err != nil {
		t.Fatalf("attach: %v", err)
	}
	address, err := url.Parse(r.GetUrl())
	if err != nil {
		t.Fatal(err)
	}
	executor, err := remotecommand.NewSPDYExecutor(&rest.Config{}, http.MethodPost, address)
	if err != nil {
		t.Fatal(err)
	}
	ctx := limited(t)
	in, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close() // the stream is still reading from in, and sees the end
	var out output
	done := make(chan error, 1)
	go func() {
		done <- executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in, Stdout: &out, Tty: tty})
	}()
	if _, err := write.WriteString(line + "\n"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, func() error {
		if strings.Contains(out.String(), reply) {
			return nil
		}
		select {
		case err := <-done:
			return fmt.Errorf("attach ended: %w; output: %q", errors.Join(errors.New("no reply"), err), out.String())
		default:
			return fmt.Errorf("no %q in the output %q", reply, out.String())
		}
	})
}

// removeAll removes all pods.
func (c *client) removeAll(t *testing.T) {
	t.Helper()
	if err := c.RemoveAllPods(limited(t)); err != nil {
		t.Error(err)
	}
}
