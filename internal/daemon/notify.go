package daemon

import (
	"fmt"
	"net"
	"os"
	"time"

	"github.com/sirupsen/logrus"
)

// serviceManager is the service manager that started the daemon, usually systemd. The daemon
// sends it messages with the protocol of sd_notify(3).
type serviceManager struct {
	socket string // path of the notification socket, "" without a service manager
}

// Messages to the service manager.
const (
	stateReady    = "READY=1"
	stateStopping = "STOPPING=1"
)

// takeServiceManager removes the variables of the service manager from the environment and
// returns the service manager. The variables are only for the daemon: an OCI runtime that
// finds NOTIFY_SOCKET or LISTEN_FDS passes them to the container.
func takeServiceManager() serviceManager {
	m := serviceManager{socket: os.Getenv("NOTIFY_SOCKET")}
	for _, name := range []string{"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		_ = os.Unsetenv(name) // fails only for malformed names
	}
	return m
}

// While the daemon starts, it asks the service manager every extendInterval to extend the
// timeout of the start to startExtension from now.
const (
	extendInterval = 10 * time.Second
	startExtension = time.Minute
)

// extendStart extends the start timeout of the service manager at every interval, so that the
// service manager does not end a start that takes long, as on a slow machine. Every step of
// the start has its own deadline. The caller calls stop when the start has ended.
func (m serviceManager) extendStart(interval time.Duration) (stop func()) {
	if m.socket == "" {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			m.notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", startExtension.Microseconds()))
			select {
			case <-ticker.C:
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); <-done }
}

// notify sends a message. Without a service manager it does nothing. A failure is only
// logged, because the daemon can serve without a service manager.
func (m serviceManager) notify(message string) {
	if m.socket == "" {
		return
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.socket, Net: "unixgram"})
	if err == nil {
		_, err = c.Write([]byte(message))
		_ = c.Close()
	}
	if err != nil {
		logrus.WithError(err).WithField("socket", m.socket).Warn("notify service manager")
	}
}
