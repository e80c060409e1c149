package main

import (
	"net"
	"os"

	"github.com/sirupsen/logrus"
)

// serviceManager is who started the daemon, by the protocol of sd_notify(3).
type serviceManager struct{ socket string }

// The states that it is told.
const (
	stateReady    = "READY=1"
	stateStopping = "STOPPING=1"
)

// adoptServiceManager takes the service manager's variables out of the
// environment. They are for this process alone: an OCI runtime that finds
// NOTIFY_SOCKET or LISTEN_FDS hands them on into the container.
func adoptServiceManager() serviceManager {
	m := serviceManager{socket: os.Getenv("NOTIFY_SOCKET")}
	for _, name := range []string{"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		_ = os.Unsetenv(name) // fails on malformed names only
	}
	return m
}

// tell is in vain without a service manager, and when it fails no more than
// that: the daemon serves all the same.
func (m serviceManager) tell(state string) {
	if m.socket == "" {
		return
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.socket, Net: "unixgram"})
	if err == nil {
		_, err = c.Write([]byte(state))
		_ = c.Close()
	}
	if err != nil {
		logrus.WithError(err).WithField("socket", m.socket).Warn("the service manager is not told")
	}
}
