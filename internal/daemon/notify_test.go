package daemon

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

// TestAStartIsExtendedUntilItEnds reads what the service manager gets.
func TestAStartIsExtendedUntilItEnds(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	next := func() string {
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
		if got := next(); got != "EXTEND_TIMEOUT_USEC=60000000" {
			t.Errorf("the service manager got %q", got)
		}
	}
	stop()
	m.notify(stateReady)
	got := next()
	for got == "EXTEND_TIMEOUT_USEC=60000000" { // sent before stop
		got = next()
	}
	if got != stateReady {
		t.Errorf("after the start the service manager got %q", got)
	}
	if stop := (serviceManager{}).extendStart(time.Nanosecond); stop == nil {
		t.Error("without a service manager there is nothing to stop")
	}
}
