package servicemanager

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// hangingServer is a runtime service that does not answer while hang is set.
type hangingServer struct {
	cri.UnimplementedRuntimeServiceServer
	hang atomic.Bool
}

func (s *hangingServer) Version(ctx context.Context, _ *cri.VersionRequest) (*cri.VersionResponse, error) {
	if s.hang.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &cri.VersionResponse{}, nil
}

// TestWatchdog checks that the service manager receives WATCHDOG=1 while the gRPC server
// answers, and only then.
func TestWatchdog(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	service, server := &hangingServer{}, grpc.NewServer()
	cri.RegisterRuntimeServiceServer(server, service)
	serveEnd := make(chan error, 1)
	go func() { serveEnd <- server.Serve(l) }()

	manager := listenNotify(t)
	m := Manager{socket: manager.LocalAddr().String(), watchdog: 2 * time.Second}
	stop := m.StartWatchdog(ProbeServer(socket))
	defer stop()
	alive := func(wait time.Duration) bool {
		t.Helper()
		if err := manager.SetReadDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		n, err := manager.Read(b)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		if err == nil && string(b[:n]) != "WATCHDOG=1" {
			t.Errorf("got message %q", b[:n])
		}
		return err == nil
	}
	for range 2 {
		if !alive(10 * time.Second) {
			t.Fatal("no message while the server answers")
		}
	}
	service.hang.Store(true)
	alive(time.Second) // a message of a request that the server answered before
	if alive(2 * m.watchdog) {
		t.Error("a message while the server does not answer")
	}
	service.hang.Store(false)
	if !alive(10 * time.Second) {
		t.Error("no message after the server answers again")
	}
	server.Stop()
	if err := <-serveEnd; err != nil {
		t.Error(err)
	}
	for alive(time.Second) { // messages before the server ended
	}
	if alive(m.watchdog) {
		t.Error("a message without a server")
	}
	stop()
	stop()
}
