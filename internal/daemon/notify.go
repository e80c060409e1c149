package daemon

import (
	"fmt"
	"net"
	"os"
	"time"

	"github.com/sirupsen/logrus"
)

// serviceManager is the service manager that started the daemon. It speaks the
// protocol of sd_notify(3).
type serviceManager struct{ socket string }

// The messages to the service manager.
const (
	stateReady    = "READY=1"
	stateStopping = "STOPPING=1"
)

// takeServiceManager takes the service manager's variables out of the
// environment. They are for this process alone: an OCI runtime that finds
// NOTIFY_SOCKET or LISTEN_FDS hands them on into the container.
func takeServiceManager() serviceManager {
	m := serviceManager{socket: os.Getenv("NOTIFY_SOCKET")}
	for _, name := range []string{"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		_ = os.Unsetenv(name) // fails on malformed names only
	}
	return m
}

// While the daemon starts, it asks for startExtension more every extendInterval.
const (
	extendInterval = 10 * time.Second
	startExtension = time.Minute
)

// extendStart keeps the service manager from ending a start that takes longer
// than its time-out, as on a slow machine. Every step of the start has a deadline
// of its own. The caller calls stop when the start has ended.
func (m serviceManager) extendStart(every time.Duration) (stop func()) {
	if m.socket == "" {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticks := time.NewTicker(every)
		defer ticks.Stop()
		for {
			m.notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", startExtension.Microseconds()))
			select {
			case <-ticks.C:
			case <-done:
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}

// notify sends a message. Without a service manager it does nothing. A failure is
// logged only, because the daemon serves without a service manager, too.
func (m serviceManager) notify(state string) {
	if m.socket == "" {
		return
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.socket, Net: "unixgram"})
	if err == nil {
		_, err = c.Write([]byte(state))
		_ = c.Close()
	}
	if err != nil {
		logrus.WithError(err).WithField("socket", m.socket).Warn("the service manager cannot be notified")
	}
}
