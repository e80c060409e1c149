package pty

import (
	"bufio"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func open(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, slave, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = master.Close()
		_ = slave.Close()
	})
	return master, slave
}

// What is typed before the program at the other end is ready is neither echoed
// nor waits for the end of a line, and Ctrl-C is a byte like any other.
func TestInputPassesAsItIs(t *testing.T) {
	master, slave := open(t)
	if _, err := master.WriteString("a\r\x03"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 16)
	n, err := slave.Read(b)
	if err != nil || string(b[:n]) != "a\r\x03" {
		t.Errorf("read %q, %v", b[:n], err)
	}
	if err := master.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if n, err := master.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("echo: %q, %v", b[:n], err)
	}
}

func TestLinesEndAsOnATerminal(t *testing.T) {
	master, slave := open(t)
	if _, err := slave.WriteString("one\ntwo"); err != nil {
		t.Fatal(err)
	}
	if err := slave.Close(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(master)
	if line, err := r.ReadString('\n'); err != nil || line != "one\r\n" {
		t.Errorf("read %q, %v", line, err)
	}
	// All that was written is read before the end.
	if rest, err := r.ReadString('\n'); rest != "two" || !errors.Is(err, unix.EIO) {
		t.Errorf("read %q, %v", rest, err)
	}
}

func TestResize(t *testing.T) {
	master, slave := open(t)
	if err := Resize(master, Size{Width: 132, Height: 43}); err != nil {
		t.Fatal(err)
	}
	ws, err := unix.IoctlGetWinsize(int(slave.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		t.Fatal(err)
	}
	if ws.Col != 132 || ws.Row != 43 {
		t.Errorf("size is %d×%d", ws.Col, ws.Row)
	}
}
