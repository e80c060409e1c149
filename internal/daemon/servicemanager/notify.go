// Package servicemanager sends messages to the service manager that started the daemon, with the protocol of
// sd_notify(3), and serves its watchdog.
package servicemanager

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/criserver/criserver/internal/periodic"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// Manager is the service manager that started the daemon, usually systemd. The daemon
// sends it messages with the protocol of sd_notify(3).
type Manager struct {
	socket   string        // path of the notification socket, "" without a service manager
	watchdog time.Duration // the service manager kills a daemon that sends no stateAlive for this time; 0: never
}

// Messages to the service manager.
const (
	StateReady    = "READY=1"
	StateStopping = "STOPPING=1"
	stateAlive    = "WATCHDOG=1"
)

// NotifyReloading says that a reload has begun. The protocol requires the time with it, so that the
// service manager can tell an earlier StateReady from the one that ends the reload.
func (m Manager) NotifyReloading() {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		logrus.WithError(err).Warn("notify service manager of a reload")
		return
	}
	m.Notify(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/int64(time.Microsecond)))
}

// NotifyReloaded says that a reload has ended. The service manager shows the error, or removes the
// error of an earlier reload.
func (m Manager) NotifyReloaded(err error) {
	status := ""
	if err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		status = "The configuration was not reloaded: " + first
	}
	m.Notify(StateReady + "\nSTATUS=" + status)
}

// Take removes the variables of the service manager from the environment and
// returns the service manager. The variables are only for the daemon: an OCI runtime that
// finds NOTIFY_SOCKET or LISTEN_FDS passes them to the container.
func Take() Manager {
	m := Manager{socket: os.Getenv("NOTIFY_SOCKET")}
	if pid := os.Getenv("WATCHDOG_PID"); pid == "" || pid == strconv.Itoa(os.Getpid()) {
		m.watchdog = watchdogTimeout(os.Getenv("WATCHDOG_USEC"))
	}
	for _, name := range []string{"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		_ = os.Unsetenv(name) // fails only for malformed names
	}
	return m
}

// While the daemon starts, it asks the service manager every ExtendInterval to extend the
// timeout of the start to startExtension from now.
const (
	ExtendInterval = 10 * time.Second
	startExtension = time.Minute
)

// ExtendStart extends the start timeout of the service manager at once and at every interval, so that the
// service manager does not end a start that takes long, as on a slow machine. Every step of
// the start has its own deadline. The caller calls stop when the start has ended.
func (m Manager) ExtendStart(interval time.Duration) (stop func()) {
	if m.socket == "" {
		return func() {}
	}
	extend := func() { m.Notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", startExtension.Microseconds())) }
	extend()
	return periodic.Start(interval, extend)
}

// notifyTimeout limits the time that a message waits while the queue of the service manager is full.
const notifyTimeout = 10 * time.Second

// Notify sends a message. Without a service manager it does nothing. A failure is only
// logged, because the daemon can serve without a service manager.
func (m Manager) Notify(message string) {
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
