package daemon

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

// TestExtendStart receives the messages to the service manager before and after stop.
func TestExtendStart(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	receive := func() string {
		b := make([]byte, 100)
		n, err := l.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	m := serviceManager{socket}
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
