package server

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/image"
	"github.com/criserver/criserver/sandbox"
)

// serve runs a Server on a socket and returns a client that accepts messages of the
// same size as the kubelet.
func serve(t *testing.T, cfg Config) cri.RuntimeServiceClient {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- New(cfg).Serve(ctx, l) }()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = conn.Close()
	})
	return cri.NewRuntimeServiceClient(conn)
}

// fakePods is a Pods that returns its fields. A method that it does not implement
// panics, because the embedded interface is nil; that holds for the other fakes, too.
type fakePods struct {
	Pods
	pods    []*sandbox.Pod
	err     error
	network error
}

func (f *fakePods) List() []*sandbox.Pod               { return f.pods }
func (f *fakePods) Stop(context.Context, string) error { return f.err }

func (f *fakePods) Remove(context.Context, string) error { return f.err }
func (f *fakePods) NetworkStatus() error                 { return f.network }

func (f *fakePods) Get(id string) (*sandbox.Pod, error) {
	for _, p := range f.pods {
		if p.ID == id {
			return p, nil
		}
	}
	return nil, errdefs.ErrNotFound
}

// fakeContainers is a Containers that returns its fields.
type fakeContainers struct {
	Containers
	list []*container.Snapshot
	err  error
}

func (f *fakeContainers) List() []*container.Snapshot                       { return f.list }
func (f *fakeContainers) Stop(context.Context, string, time.Duration) error { return f.err }

func (f *fakeContainers) Remove(context.Context, string) error { return f.err }

// fakeImages is an Images that returns its fields.
type fakeImages struct {
	Images
	list  []image.Image
	pulls []image.PullProgress
	err   error
}

func (f *fakeImages) List() []image.Image         { return f.list }
func (f *fakeImages) Pulls() []image.PullProgress { return f.pulls }

func (f *fakeImages) Remove(context.Context, string) error { return f.err }

func (f *fakeImages) Pull(_ context.Context, req image.PullRequest) (image.Image, error) {
	return f.Get(req.Ref)
}

func (f *fakeImages) Repositories(ref string) []string {
	repo, _, _ := strings.Cut(ref, ":")
	if strings.Contains(repo, "/") {
		return []string{repo}
	}
	return []string{"search/" + repo, "docker.io/library/" + repo}
}

func (f *fakeImages) Get(ref string) (image.Image, error) {
	for _, i := range f.list {
		if i.ID.String() == ref {
			return i, nil
		}
	}
	return image.Image{}, fmt.Errorf("image %q: %w", ref, errdefs.ErrNotFound)
}

// fakeRuntimes is a Runtimes that returns its fields.
type fakeRuntimes struct {
	handlers []*cri.RuntimeHandler
	features *cri.RuntimeFeatures
	err      error
}

func (f *fakeRuntimes) Features() *cri.RuntimeFeatures { return f.features }

func (f *fakeRuntimes) Handlers() []*cri.RuntimeHandler { return f.handlers }
func (f *fakeRuntimes) Status() error                   { return f.err }

// testInfo is an Info of Config.
func testInfo() map[string]string { return map[string]string{"config": "{}"} }
