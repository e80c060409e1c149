package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/criserver/criserver/test/harness"
)

const (
	logindPath    = dbus.ObjectPath("/org/freedesktop/login1")
	logindName    = "org.freedesktop.login1"
	logindManager = "org.freedesktop.login1.Manager"
	inhibitDelay  = time.Minute // the longest delay of a shutdown
	busSocket     = "/run/dbus/system_bus_socket"
)

const busConfig = `<busconfig>
  <type>system</type>
  <listen>unix:path=` + busSocket + `</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
`

// logind is the part of systemd-logind that the kubelet uses, on the system bus of a node: programs delay a shutdown by
// holding a file descriptor.
type logind struct {
	conn *dbus.Conn

	mu    sync.Mutex // guards locks
	locks []lock
}

// lock is a delay of the shutdown: a pipe whose writing end the program has, too.
type lock struct{ read, write *os.File }

// startBus starts the system bus of a node, unless systemd has started one.
func startBus(ctx context.Context, n *Node) error {
	if n.systemd() {
		return nil
	}
	path := n.dir("etc", "upper", "dbus-1", "test.conf")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(busConfig), 0o644); err != nil {
		return err
	}
	if _, err := n.Machine.Run(ctx, "mkdir", "-p", filepath.Dir(busSocket)); err != nil {
		return err
	}
	return n.Machine.StartService("dbus", nil, "dbus-daemon", "--nofork", "--config-file=/etc/dbus-1/test.conf")
}

// startLogind starts a bus and a logind on a node.
func startLogind(ctx context.Context, n *Node) (*logind, error) {
	if err := startBus(ctx, n); err != nil {
		return nil, err
	}
	conn, err := dialBus(ctx, n)
	if err != nil {
		return nil, fmt.Errorf("connect to the system bus of %s: %w", n.Name, err)
	}
	l := &logind{conn: conn}
	err = errors.Join(
		conn.ExportMethodTable(map[string]any{"Inhibit": l.inhibit}, logindPath, logindManager),
		conn.ExportMethodTable(map[string]any{"Get": l.property}, logindPath, "org.freedesktop.DBus.Properties"),
	)
	if err == nil {
		_, err = conn.RequestName(logindName, dbus.NameFlagDoNotQueue)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return l, nil
}

// dialBus connects to the bus of a node, whose socket is in the mount namespace of the node.
func dialBus(ctx context.Context, n *Node) (*dbus.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, harness.Patience(20*time.Second))
	defer cancel()
	for {
		socket, err := (&net.Dialer{}).DialContext(ctx, "unix", fmt.Sprintf("/proc/%d/root%s", n.Machine.Pid(), busSocket))
		if err == nil {
			return dbus.ConnectUnix(socket.(*net.UnixConn)) // authenticates as root
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// inhibit returns a file descriptor, which delays the shutdown until all of its copies are closed.
func (l *logind) inhibit(what, who, why, mode string) (dbus.UnixFD, *dbus.Error) {
	if what != "shutdown" || mode != "delay" {
		return -1, dbus.MakeFailedError(fmt.Errorf("inhibit %s with mode %s for %s: not supported", what, mode, who))
	}
	read, write, err := os.Pipe()
	if err != nil {
		return -1, dbus.MakeFailedError(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.locks = append(l.locks, lock{read, write})
	return dbus.UnixFD(write.Fd()), nil // the message has a duplicate
}

func (l *logind) property(iface, name string) (dbus.Variant, *dbus.Error) {
	if iface != logindManager || name != "InhibitDelayMaxUSec" {
		return dbus.Variant{}, dbus.MakeFailedError(fmt.Errorf("get property %s of %s: no such property", name, iface))
	}
	return dbus.MakeVariant(uint64(inhibitDelay.Microseconds())), nil
}

// inhibited returns the number of delays that programs have requested.
func (l *logind) inhibited() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.locks)
}

// shutDown announces a shutdown, and waits until no program delays the shutdown.
func (l *logind) shutDown(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	locks := l.locks
	l.locks = nil
	l.mu.Unlock()
	if err := l.conn.Emit(logindPath, logindManager+".PrepareForShutdown", true); err != nil {
		t.Fatal(err)
	}
	for _, lock := range locks {
		deadline := time.Now().Add(harness.Patience(inhibitDelay))
		err := errors.Join(lock.write.Close(), lock.read.SetReadDeadline(deadline))
		if err != nil {
			t.Fatal(err)
		}
		if n, err := lock.read.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a program still delays the shutdown after %v: %v", harness.Patience(inhibitDelay), err)
		}
		if err := lock.read.Close(); err != nil {
			t.Error(err)
		}
	}
}

// close closes the connection and the pipes of the delays that still exist.
func (l *logind) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.conn.Close()
	for _, lock := range l.locks {
		err = errors.Join(err, lock.read.Close(), lock.write.Close())
	}
	l.locks = nil
	if errors.Is(err, syscall.EPIPE) {
		err = nil // the machine has been shut down
	}
	return err
}
