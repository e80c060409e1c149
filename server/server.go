// Package server implements the gRPC services of the CRI. A handler checks the
// request, calls one manager, and translates the answer into messages of the CRI.
// The package keeps no state of pods, containers or images.
//
// The doc comment of each handler names the gRPC codes that a client can get
// because of the request or of the state of the node. Every handler can also
// return Canceled or DeadlineExceeded when the client's context ends, Unknown for
// a failure that a retry may cure, and Internal for a panic.
//
// A request may shorten the id of a pod sandbox or container to a unique prefix.
package server

import (
	"context"
	"iter"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/checkpoint"
	"github.com/criserver/criserver/container"
	"github.com/criserver/criserver/image"
	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/sandbox"
	"github.com/criserver/criserver/server/rpc"
)

// Pods manages pod sandboxes. *sandbox.Manager implements it.
type Pods interface {
	RunPod(ctx context.Context, config *cri.PodSandboxConfig, handler string) (string, error)
	Stop(ctx context.Context, id string) error
	Remove(ctx context.Context, id string) error
	Get(id string) (*sandbox.Pod, error)
	// List returns a new slice, which the caller may change.
	List() []*sandbox.Pod
	Stats(pods []*sandbox.Pod) []sandbox.Stats
	NetworkStatus() error
	UpdateResources(ctx context.Context, id string, overhead, resources *cri.LinuxContainerResources) error
	SetPodCIDR(ctx context.Context, cidrs string) error
	Subscribe(fn func(sandbox.Event)) (cancel func())
}

// Containers manages containers. *container.Manager implements it.
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

// Images manages the image store. *image.Manager implements it.
type Images interface {
	Pull(ctx context.Context, req image.PullRequest) (image.Image, error)
	Get(ref string) (image.Image, error)
	// Repositories returns the full repository names that ref can refer to, without
	// tags and digests, the most likely name first.
	Repositories(ref string) []string
	List() []image.Image
	Remove(ctx context.Context, ref string) error
	Pulls() []image.PullProgress
	FSUsage(ctx context.Context) (images, containers image.FSUsage, err error)
}

// Runtimes describes the OCI runtimes.
type Runtimes interface {
	// Handlers returns all runtime handlers. The features of a handler are empty
	// until the daemon has probed its runtime.
	Handlers() []*cri.RuntimeHandler
	// Features returns the features that do not depend on the handler, as far as
	// they are known.
	Features() *cri.RuntimeFeatures
	// Status returns nil if the features of all handlers are known, and otherwise
	// an error that names the missing ones.
	Status() error
}

// Checkpoints writes checkpoints. *checkpoint.Manager implements it.
type Checkpoints interface {
	Container(ctx context.Context, r checkpoint.ContainerRequest) error
	Pod(ctx context.Context, r checkpoint.PodRequest) error
}

// Restores makes pods from checkpoints. *restore.Manager implements it.
type Restores interface {
	RestorePod(ctx context.Context, r *cri.RestorePodRequest) (*cri.RestorePodResponse, error)
	// IsArchive reports whether an image of CreateContainer is an archive for CreateContainer of Restores.
	IsArchive(image string) bool
	CreateContainer(ctx context.Context, podID string, config *cri.ContainerConfig) (string, error)
	// CreateContainerFromImage restores a container from the files of an archive in an image.
	CreateContainerFromImage(ctx context.Context, podID string, config *cri.ContainerConfig, imageID string) (string, error)
}

// Config configures a Server.
type Config struct {
	Version    string // of the daemon
	Pods       Pods
	Containers Containers
	Images     Images
	Streams    Streams
	// CgroupDriver is the cgroup driver that RuntimeConfig reports to the kubelet.
	CgroupDriver cri.CgroupDriver
	Runtimes     Runtimes
	Checkpoints  Checkpoints
	Restores     Restores
	// Info returns the entries of the verbose Status as JSON values by key.
	Info func() map[string]string
	// Steps records the steps of each call, or is nil.
	Steps *steps.Recorder
	// Calls is notified of each call, or is nil.
	Calls CallObserver
	// RemoteTrace returns a context that belongs to the trace of the client, which the metadata of the
	// call name. metadata returns the first value of a key, or "". RemoteTrace is nil without tracing.
	RemoteTrace func(ctx context.Context, metadata func(key string) string) context.Context
}

// Server implements the RuntimeService and the ImageService of the CRI.
type Server struct {
	cri.UnimplementedRuntimeServiceServer
	cri.UnimplementedImageServiceServer
	cfg   Config
	clock clock
	// stopping is closed when Serve begins to stop, so that event streams, which
	// otherwise end only with their clients, do not delay the stop.
	stopping chan struct{}
}

// New returns a Server that Serve starts.
func New(cfg Config) *Server { return &Server{cfg: cfg, stopping: make(chan struct{})} }

// stopGrace bounds the wait for running calls when the server stops.
const stopGrace = 5 * time.Second

// Serve serves the CRI on the listener until ctx ends. Then it accepts no new
// calls, waits for the running calls for stopGrace at most, and returns when all
// calls have ended. Serve must be called only once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	unary, stream := s.interceptors()
	g := grpc.NewServer(
		grpc.ChainUnaryInterceptor(unary...),
		grpc.ChainStreamInterceptor(stream...),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	cri.RegisterRuntimeServiceServer(g, s)
	cri.RegisterImageServiceServer(g, s)
	return rpc.Serve(ctx, g, l, stopGrace, func() { close(s.stopping) })
}
