package pty

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// send sends the files over the console socket, as a runtime does.
func send(t *testing.T, path string, files ...*os.File) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if _, _, err := conn.(*net.UnixConn).WriteMsgUnix([]byte("/dev/ptmx"), rights, nil); err != nil {
		t.Fatal(err)
	}
}

func console(t *testing.T) *Console {
	t.Helper()
	// The path is longer than a socket address.
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 120))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := ListenConsole(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("files that still exist: %v, %v", left, err)
		}
	})
	return c
}

func TestConsole(t *testing.T) {
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer ptmx.Close()
	c := console(t)
	send(t, c.Path, ptmx)
	m, err := c.Receive(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := Resize(m, Size{Width: 132, Height: 43}); err != nil {
		t.Fatal(err)
	}
	ws, err := unix.IoctlGetWinsize(int(ptmx.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Col != 132 || ws.Row != 43 {
		t.Errorf("size is %+v, %v", ws, err)
	}
	if err := m.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
}

func TestConsoleTakesOneDescriptor(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	before := descriptors(t)
	for _, files := range [][]*os.File{nil, {null, null}} {
		c := console(t)
		send(t, c.Path, files...)
		if _, err := c.Receive(time.Minute); err == nil {
			t.Errorf("Receive returned no error for %d descriptors", len(files))
		}
	}
	if after := descriptors(t); after > before+4 { // the two consoles have four
		t.Errorf("%d descriptors are open, %d before", after, before)
	}
}

func TestReceiveTimeout(t *testing.T) {
	if _, err := console(t).Receive(time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("error %v, want os.ErrDeadlineExceeded", err)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
