package sys

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWrap(t *testing.T) {
	if err := WrapIf("open", nil); err != nil {
		t.Errorf("without an error: got %v", err)
	}
	if err := WrapIf("open", unix.ENOENT); !errors.Is(err, unix.ENOENT) || err.Error() != "open: no such file or directory" {
		t.Errorf("got %v", err)
	}
}

// TestReadFile checks that a file is read completely, and that a file without room for its end is an error.
func TestReadFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadFile(name, make([]byte, 6)); err != nil || string(b) != "hello" {
		t.Errorf("got %q, %v", b, err)
	}
	if b, err := ReadFile(name, make([]byte, 5)); err == nil {
		t.Errorf("in a small buffer: got %q, want an error", b)
	}
	if _, err := ReadFile(name+"x", nil); !errors.Is(err, unix.ENOENT) {
		t.Errorf("missing file: got %v", err)
	}
}

// TestBuffer checks that a released Buffer is empty and can be used again.
func TestBuffer(t *testing.T) {
	b, err := NewBuffer(1 << 16)
	if err != nil {
		t.Fatal(err)
	}
	copy(b, "content")
	b.Release()
	if b[0] != 0 {
		t.Errorf("after Release: got %q, want zeros", b[:7])
	}
	b[0] = 1
}

type counter struct{ events []uint32 }

func (c *counter) Ready(events uint32) { c.events = append(c.events, events) }

// TestPoller checks which events a Poller reports, also after Modify and Remove.
func TestPoller(t *testing.T) {
	var p Poller
	if err := p.Open(); err != nil {
		t.Fatal(err)
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer CloseFD(&fds[0])
	defer CloseFD(&fds[1])
	c := &counter{}
	if err := p.Add(fds[0], unix.EPOLLIN, c); err != nil {
		t.Fatal(err)
	}
	if p.Poll() || len(c.events) != 0 {
		t.Errorf("empty pipe: got the events %v", c.events)
	}
	if _, err := Write(fds[1], []byte("x")); err != nil {
		t.Fatal(err)
	}
	if p.Wait(-1); len(c.events) != 1 || c.events[0] != unix.EPOLLIN {
		t.Errorf("full pipe: got the events %v", c.events)
	}
	p.Modify(fds[0], 0)
	if p.Poll() {
		t.Errorf("without interest: got the events %v", c.events)
	}
	p.Remove(fds[0])
	CloseFD(&fds[1])
	if p.Poll() || fds[1] != -1 {
		t.Errorf("removed descriptor: got the events %v", c.events)
	}
	if err := p.Add(999, unix.EPOLLIN, c); !errors.Is(err, unix.EBADF) {
		t.Errorf("bad descriptor: got %v", err)
	}
}
