package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/criserver/criserver/internal/periodic"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// serviceManager is the service manager that started the daemon, usually systemd. The daemon
// sends it messages with the protocol of sd_notify(3).
type serviceManager struct {
	socket   string        // path of the notification socket, "" without a service manager
	watchdog time.Duration // the service manager kills a daemon that sends no stateAlive for this time; 0: never
}

// Messages to the service manager.
const (
	stateReady    = "READY=1"
	stateStopping = "STOPPING=1"
	stateAlive    = "WATCHDOG=1"
)

// notifyReloading says that a reload has begun. The protocol requires the time with it, so that the
// service manager can tell an earlier stateReady from the one that ends the reload.
func (m serviceManager) notifyReloading() {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		logrus.WithError(err).Warn("notify service manager of a reload")
		return
	}
	m.notify(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/int64(time.Microsecond)))
}

// notifyReloaded says that a reload has ended. The service manager shows the error, or removes the
// error of an earlier reload.
func (m serviceManager) notifyReloaded(err error) {
	status := ""
	if err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		status = "The configuration was not reloaded: " + first
	}
	m.notify(stateReady + "\nSTATUS=" + status)
}

// takeServiceManager removes the variables of the service manager from the environment and
// returns the service manager. The variables are only for the daemon: an OCI runtime that
// finds NOTIFY_SOCKET or LISTEN_FDS passes them to the container.
func takeServiceManager() serviceManager {
	m := serviceManager{socket: os.Getenv("NOTIFY_SOCKET")}
	if pid := os.Getenv("WATCHDOG_PID"); pid == "" || pid == strconv.Itoa(os.Getpid()) {
		m.watchdog = watchdogTimeout(os.Getenv("WATCHDOG_USEC"))
	}
	for _, name := range []string{"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		_ = os.Unsetenv(name) // fails only for malformed names
	}
	return m
}

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

// While the daemon starts, it asks the service manager every extendInterval to extend the
// timeout of the start to startExtension from now.
const (
	extendInterval = 10 * time.Second
	startExtension = time.Minute
)

// extendStart extends the start timeout of the service manager at once and at every interval, so that the
// service manager does not end a start that takes long, as on a slow machine. Every step of
// the start has its own deadline. The caller calls stop when the start has ended.
func (m serviceManager) extendStart(interval time.Duration) (stop func()) {
	if m.socket == "" {
		return func() {}
	}
	extend := func() { m.notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", startExtension.Microseconds())) }
	extend()
	return periodic.Start(interval, extend)
}

// startWatchdog calls probe four times within the timeout of the watchdog, and sends
// stateAlive after each call that succeeds. A call ends after a quarter of the timeout, so one
// call that fails does not end the daemon. If all calls fail during the timeout, the service
// manager kills the daemon and starts another one. The caller calls stop, which may be called
// twice, when the daemon stops.
func (m serviceManager) startWatchdog(probe func(context.Context) error) (stop func()) {
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
func (m serviceManager) runWatchdog(ctx context.Context, probe func(context.Context) error) {
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
			m.notify(stateAlive)
		}
	}
}

// probeServer returns a function that sends a Version request to the gRPC server at the
// socket. Each request uses a new connection, as the request of a new client does, so the
// answer shows that the server accepts connections, too.
func probeServer(socket string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		_, err = cri.NewRuntimeServiceClient(conn).Version(ctx, &cri.VersionRequest{})
		return errors.Join(err, conn.Close())
	}
}

// notifyTimeout limits the time that a message waits while the queue of the service manager is full.
const notifyTimeout = 10 * time.Second

// notify sends a message. Without a service manager it does nothing. A failure is only
// logged, because the daemon can serve without a service manager.
func (m serviceManager) notify(message string) {
	if m.socket == "" {
		return
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.socket, Net: "unixgram"})
	if err == nil {
		_ = c.SetWriteDeadline(time.Now().Add(notifyTimeout)) // fails only for closed connections
		_, err = c.Write([]byte(message))
		_ = c.Close()
	}
	if err != nil {
		logrus.WithError(err).WithField("socket", m.socket).Warn("notify service manager")
	}
}
