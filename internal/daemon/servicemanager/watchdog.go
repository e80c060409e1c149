package servicemanager

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// watchdogTimeout returns the timeout in WATCHDOG_USEC, or 0 if the service manager has no
// watchdog for the daemon or the value is invalid.
func watchdogTimeout(usec string) time.Duration {
	n, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || n <= 0 || n > int64(maxWatchdogTimeout/time.Microsecond) {
		return 0
	}
	return time.Duration(n) * time.Microsecond
}

// maxWatchdogTimeout is the longest timeout that the daemon accepts. A longer one has no use.
const maxWatchdogTimeout = 24 * time.Hour

// StartWatchdog calls probe four times within the timeout of the watchdog, and sends
// stateAlive after each call that succeeds. A call ends after a quarter of the timeout, so one
// call that fails does not end the daemon. If all calls fail during the timeout, the service
// manager kills the daemon and starts another one. The caller calls stop, which may be called
// twice, when the daemon stops.
func (m Manager) StartWatchdog(probe func(context.Context) error) (stop func()) {
	if m.socket == "" || m.watchdog == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.runWatchdog(ctx, probe)
	}()
	return sync.OnceFunc(func() { cancel(); <-done })
}

// runWatchdog runs the calls of startWatchdog until ctx ends.
func (m Manager) runWatchdog(ctx context.Context, probe func(context.Context) error) {
	interval := m.watchdog / 4
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		probeCtx, cancel := context.WithTimeout(ctx, interval)
		err := probe(probeCtx)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			logrus.WithError(err).Warn("the daemon does not answer its own request; the service manager restarts the daemon if this continues")
		default:
			m.Notify(stateAlive)
		}
	}
}

// ProbeServer returns a function that sends a Version request to the gRPC server at the
// socket. Each request uses a new connection, as the request of a new client does, so the
// answer shows that the server accepts connections, too.
func ProbeServer(socket string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		_, err = cri.NewRuntimeServiceClient(conn).Version(ctx, &cri.VersionRequest{})
		return errors.Join(err, conn.Close())
	}
}
