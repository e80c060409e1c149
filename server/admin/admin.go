// Package admin implements the services of the administration API (admin/v1) on a socket of
// their own. The CRI has its own server and socket, so that a problem here does not affect
// the kubelet. The package keeps no state of pods, containers or images.
package admin

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"

	adminv1 "github.com/criserver/criserver/admin/v1"
	"github.com/criserver/criserver/server/rpc"
)

// Config configures a Server.
type Config struct {
	Version *adminv1.GetVersionResponse
	// Status fills in the state of the parts of the daemon.
	Status func(ctx context.Context) *adminv1.GetStatusResponse
	// Settings returns the configuration in effect.
	Settings func() []*adminv1.Setting
	// Reloader applies changes of the configuration. If it is nil, Reload returns
	// Unimplemented.
	Reloader Reloader
	// ImageChecker verifies the image store.
	ImageChecker ImageChecker
	// Pods, Containers and Cgroups are the objects that the services show.
	Pods       Pods
	Containers Containers
	Cgroups    Cgroups
	// Timelines contains the timelines of pods and containers.
	Timelines Timelines
	// Networks inspects the networks of the node.
	Networks Networks
	Images   ImageStore
}

// Server implements the services of the administration API.
type Server struct {
	adminv1.UnimplementedDaemonServer
	adminv1.UnimplementedNamespacesServer
	adminv1.UnimplementedCgroupServer
	adminv1.UnimplementedTraceServer
	adminv1.UnimplementedNetworkServer
	adminv1.UnimplementedLayersServer
	adminv1.UnimplementedImagesServer
	adminv1.UnimplementedCheckServer
	cfg       Config
	profiling chan struct{} // contains an element while a CPU profile is in progress
	// stopping is closed when Serve begins to stop, so that profiles in progress end.
	stopping chan struct{}
}

// New returns a Server that Serve starts.
func New(cfg Config) *Server {
	return &Server{cfg: cfg, profiling: make(chan struct{}, 1), stopping: make(chan struct{})}
}

// stopGrace bounds the wait for running calls when the server stops.
const stopGrace = time.Second

// Serve serves the API on the listener until ctx ends. Then it accepts no new calls, waits
// for the running calls for stopGrace at most, and returns when all calls have ended. Serve
// must be called only once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	g := grpc.NewServer(
		grpc.UnaryInterceptor(rpc.UnaryInterceptor(nil)),
		grpc.StreamInterceptor(rpc.InterceptStream),
	)
	adminv1.RegisterDaemonServer(g, s)
	adminv1.RegisterNamespacesServer(g, s)
	adminv1.RegisterCgroupServer(g, s)
	adminv1.RegisterTraceServer(g, s)
	adminv1.RegisterNetworkServer(g, s)
	adminv1.RegisterLayersServer(g, s)
	adminv1.RegisterImagesServer(g, s)
	adminv1.RegisterCheckServer(g, s)
	return rpc.Serve(ctx, g, l, stopGrace, func() { close(s.stopping) })
}
