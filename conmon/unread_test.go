package conmon_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/conmon/wire"
)

// lateWriter blocks until the channel is closed.
type lateWriter struct {
	buffer
	open chan struct{}
}

func (w *lateWriter) Write(p []byte) (int, error) {
	<-w.open
	return w.buffer.Write(p)
}

// numbers returns the output of `seq 1 n`.
func numbers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintln(&b, i+1)
	}
	return b.String()
}

// keepInput starts a process that outlives the first one and keeps the input open, so that the
// monitor has no reason to read more of the client's input. A shell starts background processes with
// /dev/null as descriptor 0, so the process gets the input as descriptor 3.
const keepInput = "exec 3<&0; sleep 5 <&3 >/dev/null 2>&1 & "

// TestAttachWithUnreadInput attaches a client to a container that exits without reading its input. The
// client gets all output. The short input fits into the pipe and the queue of the connection, so the
// client has sent everything when the container exits. With the long input the client is still
// sending, and a reset of the connection can end the sending instead of the reading.
func TestAttachWithUnreadInput(t *testing.T) {
	const lines = 30_000
	script := fmt.Sprintf(keepInput+"while ! [ -e go ]; do sleep 0.01; done; i=0; while [ $i -lt %d ]; do i=$((i+1)); echo $i; done; exit 3", lines)
	for name, size := range map[string]int{"short": 4 * wire.MaxPayload, "long": 4 << 20} {
		t.Run(name, func(t *testing.T) {
			b := runScript(t, script, func(s *conmon.Spec) { s.Stdin, s.StdinOnce = true, true })
			out := &lateWriter{open: make(chan struct{})}
			a := &attached{done: make(chan struct{})}
			a.run(b, conmon.AttachOptions{Stdin: bytes.NewReader(make([]byte, size)), Stdout: out})
			b.start()
			time.Sleep(200 * time.Millisecond) // until the input has filled the pipe and the queue
			touch(filepath.Join(b.spec.RunDir, "go"))
			b.exit()
			b.waitExited(b.monitor)
			close(out.open)
			a.wait(t)
			if a.err != nil || a.code != 3 {
				t.Errorf("attach: code %d, %v", a.code, a.err)
			}
			if want := numbers(lines); out.String() != want {
				t.Errorf("attach saw %d bytes of output, want %d", len(out.String()), len(want))
			}
		})
	}
}

// TestMonitorDoesNotReset checks that the monitor reads everything that a client has sent before it
// closes the connection, so that the connection is not reset.
func TestMonitorDoesNotReset(t *testing.T) {
	script := keepInput + "while ! [ -e go ]; do sleep 0.01; done; echo result; exit 3"
	b := runScript(t, script, func(s *conmon.Spec) { s.Stdin = true })
	b.start()
	fd := b.dial()
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(`{"op":"attach","stdin":true,"stdout":true}`+"\n")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	if _, err := unix.Read(fd, buf); err != nil {
		t.Fatal(err)
	}
	frame := append([]byte{byte(wire.FrameStdin)}, make([]byte, wire.MaxPayload)...)
	for full := false; !full; { // fill the pipe and then the queue
		err := unix.Sendto(fd, frame, unix.MSG_DONTWAIT, nil)
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
		full = errors.Is(err, unix.EAGAIN)
	}
	touch(filepath.Join(b.spec.RunDir, "go"))
	b.waitExited(b.monitor)
	var got []string
	for {
		n, err := unix.Read(fd, buf)
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		if n == 0 {
			break
		}
		got = append(got, string(buf[:n]))
	}
	if want := []string{"oresult\n", "x\x00\x00\x00\x03"}; fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("frames %q, want %q", got, want)
	}
}

// TestAttachToMonitorThatResets checks that the client reads everything that a monitor of an
// earlier version has sent before it reset the connection.
func TestAttachToMonitorThatResets(t *testing.T) {
	dir := t.TempDir()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(dir, conmon.ControlSocket), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	out := &lateWriter{open: make(chan struct{})}
	type result struct {
		code int32
		err  error
	}
	done := make(chan result, 1)
	go func() {
		code, err := conmon.Attach(t.Context(), dir, conmon.AttachOptions{Stdin: strings.NewReader("unread"), Stdout: out})
		done <- result{code, err}
	}()
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, wire.MaxRequest)
	if _, err := c.Read(buf); err != nil {
		t.Fatal(err)
	}
	for _, packet := range []string{"{}\n", "ofirst\n", "osecond\n", "x\x00\x00\x00\x07"} {
		if _, err := c.Write([]byte(packet)); err != nil {
			t.Fatal(err)
		}
	}
	awaitInput(t, c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	close(out.open)
	if r := <-done; r.err != nil || r.code != 7 || out.String() != "first\nsecond\n" {
		t.Errorf("attach: code %d, %v, output %q", r.code, r.err, out.String())
	}
}

// awaitInput waits for a packet but does not read it.
func awaitInput(t *testing.T, c *net.UnixConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Read(func(fd uintptr) bool {
			_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
			return !errors.Is(err, unix.EAGAIN)
		})
	}
	if err != nil {
		t.Fatal(err)
	}
}
