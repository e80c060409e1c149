// Package server is the gRPC face of the daemon: it checks requests, calls one
// manager, and translates the answer into the messages of the CRI. It holds no
// state of pods, containers or images.
package server

import (
	"context"
	"fmt"
	"iter"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/image"
	"github.com/criserver/criserver/sandbox"
)

// Pods is what the server asks of pod sandboxes.
type Pods interface {
	RunPod(ctx context.Context, config *cri.PodSandboxConfig, handler string) (string, error)
	Stop(ctx context.Context, id string) error
	Remove(ctx context.Context, id string) error
	Get(id string) (*sandbox.Pod, error)
	List() []*sandbox.Pod
	Stats(pods []*sandbox.Pod) []sandbox.Stats
	NetworkStatus() error
	UpdateResources(ctx context.Context, id string, overhead, resources *cri.LinuxContainerResources) error
	SetPodCIDR(ctx context.Context, cidrs string) error
	Subscribe(fn func(sandbox.Event)) (cancel func())
}

// Containers is what the server asks of containers.
type Containers interface {
	Create(ctx context.Context, podID string, config *cri.ContainerConfig, podConfig *cri.PodSandboxConfig) (string, error)
	Start(ctx context.Context, id string) error
	Stop(ctx context.Context, id string, timeout time.Duration) error
	Remove(ctx context.Context, id string) error
	Get(id string) (*container.Snapshot, error)
	List() []*container.Snapshot
	ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (container.ExecResult, error)
	UpdateResources(ctx context.Context, id string, r *cri.LinuxContainerResources) error
	ReopenLog(ctx context.Context, id string) error
	Stats(id string) (container.Stats, error)
	Subscribe(fn func(container.Event)) (cancel func())
	StatsOf(match func(*container.Snapshot) bool) iter.Seq[container.Stats]
}

// Images is what the server asks of the image store.
type Images interface {
	Pull(ctx context.Context, req image.PullRequest) (image.Image, error)
	Get(ref string) (image.Image, error)
	// Repositories returns the full names that ref can stand for, without tags and
	// digests, the most likely first.
	Repositories(ref string) []string
	List() []image.Image
	Remove(ctx context.Context, ref string) error
	Pulls() []image.PullProgress
	FSUsage(ctx context.Context) (images, containers image.FSUsage, err error)
}

// Runtimes is what the server asks of the OCI runtimes.
type Runtimes interface {
	// Handlers returns all runtime handlers, with the features that are known.
	Handlers() []*cri.RuntimeHandler
	// Status returns nil when the features of all handlers are known, and
	// otherwise says what is missing.
	Status() error
}

// Config is what a Server is made of.
type Config struct {
	Version    string // of the daemon
	Pods       Pods
	Containers Containers
	Images     Images
	Streams    Streams
	// CgroupDriver is what the kubelet is told to use.
	CgroupDriver cri.CgroupDriver
	Runtimes     Runtimes
	Features     *cri.RuntimeFeatures
	// Info returns what is added to the verbose Status, as JSON values by key.
	Info func() map[string]string
}

// Server implements the RuntimeService and ImageService of the CRI.
type Server struct {
	cri.UnimplementedRuntimeServiceServer
	cri.UnimplementedImageServiceServer
	cfg    Config
	ending chan struct{} // closed when Serve ends: streams without an end must not hold it up
}

// New returns a Server over the managers.
func New(cfg Config) *Server { return &Server{cfg: cfg, ending: make(chan struct{})} }

// maxMessage bounds a request or an answer, as the kubelet's client does.
const maxMessage = 16 << 20

// stopGrace is how long calls under way may take to end when the server stops.
const stopGrace = 5 * time.Second

// Serve answers on the listener until ctx ends. Then it takes no new calls,
// lets those under way finish for a while, and returns when all have ended. It
// is called once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	g := grpc.NewServer(
		grpc.UnaryInterceptor(unary),
		grpc.StreamInterceptor(stream),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	cri.RegisterRuntimeServiceServer(g, s)
	cri.RegisterImageServiceServer(g, s)
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	close(s.ending)
	force := time.AfterFunc(stopGrace, g.Stop)
	defer force.Stop()
	g.GracefulStop()
	return <-served
}
