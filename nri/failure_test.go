package nri

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
)

// TestRefusal checks that the error of a refused request contains the name and the message of
// the plugin, and that the plugin remains connected.
func TestRefusal(t *testing.T) {
	f := newFixture(t, nil)
	first := &plugin{}
	f.connect(t, first, "00")
	f.connect(t, &plugin{
		onRunPod: func(context.Context, *api.PodSandbox) error { return errors.New("pods are refused") },
		onCreateContainer: func(*api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
			return nil, nil, errors.New("containers are refused")
		},
	}, "10")
	err := f.RunPod(t.Context(), testPod("p"))
	if err == nil || !strings.Contains(err.Error(), `plugin "10-test", RunPodSandbox: pods are refused`) {
		t.Errorf("RunPod: got %v", err)
	}
	_, _, err = f.CreateContainer(t.Context(), testPod("p"), testContainer("c"), testSpec())
	if err == nil || !strings.Contains(err.Error(), "containers are refused") {
		t.Errorf("CreateContainer: got %v", err)
	}
	if errdefs.IsNotFound(err) || f.plugins.Load() != 2 {
		t.Errorf("after a refusal: got %d plugins, %v, want 2 plugins and no NotFound error", f.plugins.Load(), err)
	}
}

// TestHangingPlugin checks that a plugin that does not answer delays only one request, and is
// then disconnected.
func TestHangingPlugin(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.RequestTimeout = 200 * time.Millisecond })
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	p := &plugin{onRunPod: func(context.Context, *api.PodSandbox) error { <-release; return nil }}
	f.connect(t, p, "10")
	var all sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		all.Go(func() { errs[i] = f.RunPod(t.Context(), testPod(fmt.Sprint(i))) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Errorf("requests with a hanging plugin: got %v", err)
	}
	if n := len(p.recorded()); n != 1 {
		t.Errorf("%d requests waited for the hanging plugin, want 1", n)
	}
	waitFor(t, "the disconnection of the plugin", func() bool { return !f.HasPlugins() })
}

// TestCancelWhileWaiting checks that a caller that waits for another event can give up.
func TestCancelWhileWaiting(t *testing.T) {
	f := newFixture(t, nil)
	reached, release := make(chan struct{}), make(chan struct{})
	f.connect(t, &plugin{onRunPod: func(context.Context, *api.PodSandbox) error { close(reached); <-release; return nil }}, "10")
	done := make(chan error, 1)
	go func() { done <- f.RunPod(context.WithoutCancel(t.Context()), testPod("slow")) }()
	<-reached
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.StartContainer(ctx, testPod("p"), testContainer("c")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestPluginExitsDuringEvent checks that a request succeeds if a plugin disconnects while it
// handles the event.
func TestPluginExitsDuringEvent(t *testing.T) {
	f := newFixture(t, nil)
	p := &plugin{}
	p.onRunPod = func(context.Context, *api.PodSandbox) error { go p.stub.Stop(); <-p.closed; return nil }
	f.connect(t, p, "10")
	if err := f.RunPod(t.Context(), testPod("p")); err != nil {
		t.Errorf("got %v", err)
	}
	waitFor(t, "the disconnection of the plugin", func() bool { _ = f.RunPod(t.Context(), testPod("q")); return !f.HasPlugins() })
}

// TestFailurePolicy checks that a request fails if the plugin does not answer and has registered
// with the policy fail_request.
func TestFailurePolicy(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.RequestTimeout = 200 * time.Millisecond })
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	p := &plugin{onRunPod: func(context.Context, *api.PodSandbox) error { <-release; return nil }}
	f.connect(t, p, "10", stub.WithFailurePolicy(&api.FailurePolicy{FailRequest: true}))
	if err := f.RunPod(t.Context(), testPod("p")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestInvalidConnections checks that clients that do not speak the protocol do not affect plugins.
func TestInvalidConnections(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.RegistrationTimeout = 300 * time.Millisecond })
	for _, data := range []string{"", "GET / HTTP/1.1\r\n\r\n", strings.Repeat("\xff", 64<<10)} {
		conn, err := net.Dial("unix", f.socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := conn.Write([]byte(data)); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Log(err) // the connection was closed before all data was written
		}
	}
	p := &plugin{}
	f.connect(t, p, "10")
	if err := f.RunPod(t.Context(), testPod("p")); err != nil || len(p.recorded()) != 1 {
		t.Errorf("got %v, events %v", err, p.recorded())
	}
}

// TestSocketErrors checks that Start does not replace a socket in use, and does not create a
// socket in a directory that other users can write to.
func TestSocketErrors(t *testing.T) {
	f := newFixture(t, nil)
	c := f.cfg
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Start(); !errors.Is(err, ErrSocketInUse) {
		t.Errorf("socket in use: got %v", err)
	}
	if SocketInUse(filepath.Join(t.TempDir(), "none")) {
		t.Error("SocketInUse returns true for a socket that does not exist")
	}
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	c.Socket = filepath.Join(open, "nri.sock")
	if m, err = New(c); err != nil {
		t.Fatal(err)
	}
	if err := m.Start(); err == nil || !strings.Contains(err.Error(), "is writable by other users") {
		t.Errorf("writable directory: got %v", err)
	}
}
