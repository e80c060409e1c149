package daemon

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// listenNotify returns the notification socket of a service manager.
func listenNotify(t *testing.T) *net.UnixConn {
	t.Helper()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// TestExtendStart receives the messages to the service manager before and after stop.
func TestExtendStart(t *testing.T) {
	l := listenNotify(t)
	receive := func() string {
		b := make([]byte, 100)
		n, err := l.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	m := serviceManager{socket: l.LocalAddr().String()}
	stop := m.extendStart(10 * time.Millisecond)
	for range 3 {
		if got := receive(); got != "EXTEND_TIMEOUT_USEC=60000000" {
			t.Errorf("during the start: got message %q", got)
		}
	}
	stop()
	m.notify(stateReady)
	got := receive()
	for got == "EXTEND_TIMEOUT_USEC=60000000" { // a message that was sent before stop
		got = receive()
	}
	if got != stateReady {
		t.Errorf("after the start: got message %q, want %q", got, stateReady)
	}
	if stop := (serviceManager{}).extendStart(time.Nanosecond); stop == nil {
		t.Error("without a service manager: got no stop function")
	}
}

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
	m := serviceManager{socket: manager.LocalAddr().String(), watchdog: 2 * time.Second}
	stop := m.startWatchdog(probeServer(socket))
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

func TestTakeServiceManager(t *testing.T) {
	for _, tc := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0},
		{"120000000", "", 2 * time.Minute},
		{"120000000", strconv.Itoa(os.Getpid()), 2 * time.Minute},
		{"120000000", "1", 0}, // the watchdog of another process
		{"-1", "", 0},
		{"0", "", 0},
		{"2min", "", 0},
		{"9223372036854775807", "", 0},
	} {
		t.Setenv("NOTIFY_SOCKET", "/run/systemd/notify")
		t.Setenv("WATCHDOG_USEC", tc.usec)
		t.Setenv("WATCHDOG_PID", tc.pid)
		if m := takeServiceManager(); m.socket != "/run/systemd/notify" || m.watchdog != tc.want {
			t.Errorf("WATCHDOG_USEC=%q, WATCHDOG_PID=%q: got %+v, want a watchdog of %v", tc.usec, tc.pid, m, tc.want)
		}
		for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
			if _, ok := os.LookupEnv(name); ok {
				t.Errorf("%s is still in the environment", name)
			}
		}
	}
}
