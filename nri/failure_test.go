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

func TestRefusalHasThePluginsWords(t *testing.T) {
	b := newBed(t, nil)
	first := &plugin{}
	b.connect(t, first, "00")
	b.connect(t, &plugin{
		runs: func(context.Context, *api.PodSandbox) error { return errors.New("no pods on Sundays") },
		make: func(*api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
			return nil, nil, errors.New("nor containers")
		},
	}, "10")
	err := b.RunPod(t.Context(), testPod("p"))
	if err == nil || !strings.Contains(err.Error(), `plugin "10-test", RunPodSandbox: no pods on Sundays`) {
		t.Errorf("got %v", err)
	}
	_, err = b.CreateContainer(t.Context(), testPod("p"), testContainer("c"), testSpec())
	if err == nil || !strings.Contains(err.Error(), "nor containers") {
		t.Errorf("got %v", err)
	}
	if errdefs.IsNotFound(err) || b.plugins.Load() != 2 {
		t.Errorf("a refusal must not cost the connection: %d plugins, %v", b.plugins.Load(), err)
	}
}

// A plugin that does not answer costs the request its time-out, once; then it is
// gone, and nobody waits for it any more.
func TestHangingPluginIsDropped(t *testing.T) {
	b := newBed(t, func(c *Config) { c.RequestTimeout = 200 * time.Millisecond })
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	p := &plugin{runs: func(context.Context, *api.PodSandbox) error { <-release; return nil }}
	b.connect(t, p, "10")
	var all sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		all.Go(func() { errs[i] = b.RunPod(t.Context(), testPod(fmt.Sprint(i))) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Errorf("requests fail with a plugin that hangs: %v", err)
	}
	if n := len(p.seen()); n != 1 {
		t.Errorf("%d requests waited for the plugin that hangs, want 1", n)
	}
	await(t, "the plugin's end", func() bool { return !b.Any() })
}

func TestWaitingForATurnEndsWithTheCaller(t *testing.T) {
	b := newBed(t, nil)
	reached, release := make(chan struct{}), make(chan struct{})
	b.connect(t, &plugin{runs: func(context.Context, *api.PodSandbox) error { close(reached); <-release; return nil }}, "10")
	done := make(chan error, 1)
	go func() { done <- b.RunPod(context.WithoutCancel(t.Context()), testPod("slow")) }()
	<-reached
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.StartContainer(ctx, testPod("p"), testContainer("c")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestPluginThatDiesMidRequest(t *testing.T) {
	b := newBed(t, nil)
	p := &plugin{}
	p.runs = func(context.Context, *api.PodSandbox) error { go p.stub.Stop(); <-p.closed; return nil }
	b.connect(t, p, "10")
	if err := b.RunPod(t.Context(), testPod("p")); err != nil {
		t.Errorf("got %v", err)
	}
	await(t, "the plugin's end", func() bool { _ = b.RunPod(t.Context(), testPod("q")); return !b.Any() })
}

// fail_request is the plugin's own wish.
func TestPluginThatInsists(t *testing.T) {
	b := newBed(t, func(c *Config) { c.RequestTimeout = 200 * time.Millisecond })
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	p := &plugin{runs: func(context.Context, *api.PodSandbox) error { <-release; return nil }}
	b.connect(t, p, "10", stub.WithFailurePolicy(&api.FailurePolicy{FailRequest: true}))
	if err := b.RunPod(t.Context(), testPod("p")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestNonsenseOnTheSocket(t *testing.T) {
	b := newBed(t, func(c *Config) { c.RegistrationTimeout = 300 * time.Millisecond })
	for _, data := range []string{"", "GET / HTTP/1.1\r\n\r\n", strings.Repeat("\xff", 64<<10)} {
		conn, err := net.Dial("unix", b.socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := conn.Write([]byte(data)); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Log(err) // it was thrown out before it had said it all
		}
	}
	p := &plugin{}
	b.connect(t, p, "10")
	if err := b.RunPod(t.Context(), testPod("p")); err != nil || len(p.seen()) != 1 {
		t.Errorf("%v, %v", err, p.seen())
	}
}

func TestSocketOfAnother(t *testing.T) {
	b := newBed(t, nil)
	c := b.cfg
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Start(); !errors.Is(err, ErrSocketInUse) {
		t.Errorf("got %v", err)
	}
	if SocketInUse(filepath.Join(t.TempDir(), "none")) {
		t.Error("a socket that is not there is in use")
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
	if err := m.Start(); err == nil || !strings.Contains(err.Error(), "can be written to by others") {
		t.Errorf("got %v", err)
	}
}
