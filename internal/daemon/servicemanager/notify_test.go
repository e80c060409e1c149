package servicemanager

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
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
	m := Manager{socket: l.LocalAddr().String()}
	stop := m.ExtendStart(10 * time.Millisecond)
	for range 3 {
		if got := receive(); got != "EXTEND_TIMEOUT_USEC=60000000" {
			t.Errorf("during the start: got message %q", got)
		}
	}
	stop()
	m.Notify(StateReady)
	got := receive()
	for got == "EXTEND_TIMEOUT_USEC=60000000" { // a message that was sent before stop
		got = receive()
	}
	if got != StateReady {
		t.Errorf("after the start: got message %q, want %q", got, StateReady)
	}
	if stop := (Manager{}).ExtendStart(time.Nanosecond); stop == nil {
		t.Error("without a service manager: got no stop function")
	}
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
		if m := Take(); m.socket != "/run/systemd/notify" || m.watchdog != tc.want {
			t.Errorf("WATCHDOG_USEC=%q, WATCHDOG_PID=%q: got %+v, want a watchdog of %v", tc.usec, tc.pid, m, tc.want)
		}
		for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
			if _, ok := os.LookupEnv(name); ok {
				t.Errorf("%s is still in the environment", name)
			}
		}
	}
}

func TestNotifyReload(t *testing.T) {
	c := listenNotify(t)
	m := Manager{socket: c.LocalAddr().String()}
	receive := func() string {
		b := make([]byte, 4096)
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	m.NotifyReloading()
	if got := receive(); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") || strings.HasSuffix(got, "=0") {
		t.Errorf("got %q", got)
	}
	m.NotifyReloaded(errors.New("first line\nsecond line"))
	if got := receive(); got != "READY=1\nSTATUS=The configuration was not reloaded: first line" {
		t.Errorf("got %q", got)
	}
	m.NotifyReloaded(nil)
	if got := receive(); got != "READY=1\nSTATUS=" {
		t.Errorf("got %q", got)
	}
}
