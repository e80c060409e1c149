package conmon_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon"
)

// buffer is a bytes.Buffer that two goroutines can use.
type buffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// attached is a running Attach.
type attached struct {
	stdout, stderr buffer
	stdin          *io.PipeWriter
	sizes          chan conmon.Size
	cancel         context.CancelFunc
	done           chan struct{}
	code           int32
	err            error
}

func (b *testbed) attach(withStdin bool) *attached {
	b.t.Helper()
	a := &attached{done: make(chan struct{}), sizes: make(chan conmon.Size)}
	opts := conmon.AttachOptions{Stdout: &a.stdout, Stderr: &a.stderr, Resize: a.sizes}
	if withStdin {
		var r *io.PipeReader
		r, a.stdin = io.Pipe()
		opts.Stdin = r
		b.t.Cleanup(func() { r.Close() })
	}
	a.run(b, opts)
	return a
}

func (a *attached) run(b *testbed, opts conmon.AttachOptions) {
	var ctx context.Context
	ctx, a.cancel = context.WithCancel(b.t.Context())
	joined := make(chan struct{})
	opts.Attached = func() { close(joined) }
	go func() {
		defer close(a.done)
		a.code, a.err = conmon.Attach(ctx, b.spec.RunDir, opts)
	}()
	b.t.Cleanup(func() {
		a.cancel()
		<-a.done
	})
	// The client gets only what the container writes after this.
	select {
	case <-joined:
	case <-a.done:
		b.t.Fatal(a.err)
	}
}

// clients returns the number of sockets of the monitor.
func (b *testbed) clients() (n int) {
	dir := "/proc/" + itoa(b.monitor.PID) + "/fd/"
	fds, _ := os.ReadDir(dir)
	for _, fd := range fds {
		if link, _ := os.Readlink(dir + fd.Name()); strings.HasPrefix(link, "socket:") {
			n++
		}
	}
	return n
}

func (a *attached) wait(t *testing.T) {
	t.Helper()
	select {
	case <-a.done:
	case <-time.After(testTimeout):
		t.Fatal("timeout: end of attach")
	}
}

// runScript creates a container of the fake runtime that will run a script.
func runScript(t *testing.T, script string, spec func(*conmon.Spec)) *testbed {
	t.Helper()
	b := newTestbed(t)
	b.spec.RuntimeEnv = append(b.spec.RuntimeEnv, "FAKE_SCRIPT="+script)
	if spec != nil {
		spec(&b.spec)
	}
	b.create()
	return b
}

func TestAttachOutput(t *testing.T) {
	b := runScript(t, "echo out; echo err >&2; printf end; exit 4", nil)
	first, second := b.attach(false), b.attach(true) // the container has no stdin, so input is discarded
	b.start()
	for _, a := range []*attached{first, second} {
		a.wait(t)
		if a.err != nil || a.code != 4 {
			t.Errorf("attach: code %d, %v", a.code, a.err)
		}
		if a.stdout.String() != "out\nend" || a.stderr.String() != "err\n" {
			t.Errorf("the client got %q and %q", a.stdout.String(), a.stderr.String())
		}
	}
	if e := b.exit(); e.ExitCode != 4 {
		t.Errorf("exit record %+v", e)
	}
	_, err := conmon.Attach(t.Context(), b.spec.RunDir, conmon.AttachOptions{})
	if err == nil {
		t.Error("attach to an exited container returned no error")
	}
}

func TestAttachStdin(t *testing.T) {
	b := runScript(t, "exec cat", func(s *conmon.Spec) { s.Stdin = true })
	b.start()
	for _, word := range []string{"one\n", "two\n"} { // stdin stays open between sessions
		a := b.attach(true)
		_, _ = a.stdin.Write([]byte(word))
		b.eventually("echo", func() bool { return a.stdout.String() == word })
		a.stdin.Close()
		a.cancel()
		a.wait(t)
		if !errors.Is(a.err, context.Canceled) {
			t.Errorf("attach: %v", a.err)
		}
	}
	both := []*attached{b.attach(true), b.attach(true)}
	for _, a := range both {
		_, _ = a.stdin.Write([]byte("both\n"))
	}
	for _, a := range both {
		b.eventually("echo", func() bool { return a.stdout.String() == "both\nboth\n" })
	}
}

func TestStdinOnce(t *testing.T) {
	tests := []struct {
		name  string
		leave func(a *attached)
	}{
		{"end of input", func(a *attached) { a.stdin.Close() }},
		{"disconnect", func(a *attached) { a.cancel() }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := runScript(t, "cat; exit 6", func(s *conmon.Spec) { s.Stdin, s.StdinOnce = true, true })
			b.start()
			b.attach(false).cancel() // a client without stdin does not count
			a := b.attach(true)
			_, _ = a.stdin.Write([]byte("all\n"))
			b.eventually("echo", func() bool { return a.stdout.String() == "all\n" })
			tt.leave(a)
			if e := b.exit(); e.ExitCode != 6 {
				t.Errorf("exit record %+v", e)
			}
		})
	}
}

// TestLargeStdin checks that input that is larger than all buffers arrives, and then its end.
func TestLargeStdin(t *testing.T) {
	b := runScript(t, "while ! [ -e go ]; do sleep 0.01; done; cat; echo .", func(s *conmon.Spec) {
		s.Stdin, s.StdinOnce = true, true
	})
	b.start()
	input := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)
	a := &attached{done: make(chan struct{})}
	a.run(b, conmon.AttachOptions{Stdin: bytes.NewReader(input), Stdout: &a.stdout})
	touch(b.spec.RunDir + "/go")
	a.wait(t)
	if a.err != nil || a.stdout.String() != string(input)+".\n" {
		t.Errorf("got %d of %d bytes, %v", len(a.stdout.String()), len(input), a.err)
	}
}

// TestStdinOfDisconnectedClient checks that the container gets the input of a client that
// disconnected while the container did not read.
func TestStdinOfDisconnectedClient(t *testing.T) {
	b := runScript(t, "while ! [ -e go ]; do sleep 0.01; done; cat", func(s *conmon.Spec) {
		s.Stdin, s.StdinOnce = true, true
	})
	b.start()
	a := b.attach(true)
	input := strings.Repeat("0123456789abcde\n", 10<<10) // more than the pipe, less than the socket
	_, _ = a.stdin.Write([]byte(input))
	a.stdin.Close()
	time.Sleep(50 * time.Millisecond) // until the packets have reached the socket; the result does not depend on it
	a.cancel()
	a.wait(t)
	if err := conmon.ReopenLog(t.Context(), b.spec.RunDir); err != nil {
		t.Errorf("while input waits: %v", err)
	}
	touch(b.spec.RunDir + "/go")
	b.exit()
	if got := text(b.log(b.spec.LogPath), "stdout"); !strings.HasPrefix(input, got) || len(got) < 64<<10 {
		t.Errorf("%d bytes of %d arrived", len(got), len(input))
	}
}

// blockedWriter is a writer that blocks until the channel is closed.
type blockedWriter chan struct{}

func (n blockedWriter) Write(p []byte) (int, error) {
	<-n
	return len(p), nil
}

// TestSlowClient checks that a client that does not read is disconnected. The container, its log
// and other clients are not affected.
func TestSlowClient(t *testing.T) {
	const total = 20_000_000
	b := newTestbed(t)
	b.writer(total, 65536)
	b.spec.Stdin = true
	b.create()
	slow, fast := &attached{done: make(chan struct{})}, &attached{done: make(chan struct{})}
	stuck := make(blockedWriter)
	release := sync.OnceFunc(func() { close(stuck) })
	slow.run(b, conmon.AttachOptions{Stdout: stuck})
	t.Cleanup(release) // before the cleanup of run, which waits for the client
	var count counter
	// With stdin, the container waits for the client, so the client gets everything.
	b.attachStdin(fast, &count)
	b.start()
	b.eventually("all of the log", func() bool {
		info, err := os.Stat(b.spec.LogPath)
		// A line that is interrupted for too long is written as two entries.
		return err == nil && info.Size() >= total/100*140
	})
	b.eventually("all of the stream", func() bool { return count.load() == total })
	release()
	slow.wait(t)
	if !errors.Is(slow.err, conmon.ErrDisconnected) {
		t.Errorf("the slow client: %v, want ErrDisconnected", slow.err)
	}
	b.end()
	fast.wait(t)
	if fast.err != nil || fast.code != 137 {
		t.Errorf("the other client: code %d, %v", fast.code, fast.err)
	}
}

// TestStuckClientWithStdin checks that a client with stdin delays the container only for a limited
// time.
func TestStuckClientWithStdin(t *testing.T) {
	t.Parallel() // the test takes as long as slowClientTimeout of the monitor
	const total = 20_000_000
	b := newTestbed(t)
	b.writer(total, 65536)
	b.spec.Stdin = true
	b.create()
	stuck := make(blockedWriter)
	release := sync.OnceFunc(func() { close(stuck) })
	a := &attached{done: make(chan struct{})}
	b.attachStdin(a, stuck)
	t.Cleanup(release) // before the cleanup of run, which waits for the client
	b.start()
	b.eventually("all of the log", func() bool {
		info, err := os.Stat(b.spec.LogPath)
		// A line that is interrupted for too long is written as two entries.
		return err == nil && info.Size() >= total/100*140
	})
	release()
	a.wait(t)
	if !errors.Is(a.err, conmon.ErrDisconnected) {
		t.Errorf("attach: %v, want ErrDisconnected", a.err)
	}
}

func TestTerminal(t *testing.T) {
	b := newRuncTestbed(t, func(config map[string]any) {
		config["process"].(object)["terminal"] = true
	}, sh("read x; echo got $x; stty size; read x; stty size; tty; exit 9")...)
	// The path of the console socket becomes too long for a socket address.
	deep := b.spec.RunDir + "/" + strings.Repeat("d", 100)
	if err := os.Mkdir(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	b.spec.RunDir, b.spec.Terminal, b.spec.Stdin = deep, true, true
	b.create()
	a := b.attach(true)
	if err := conmon.Resize(t.Context(), b.spec.RunDir, conmon.Size{Width: 91, Height: 31}); err != nil {
		t.Error(err)
	}
	b.start()
	_, _ = a.stdin.Write([]byte("word\n"))
	b.eventually("first size", func() bool { return strings.Contains(a.stdout.String(), "31 91\r\n") })
	for range 2 { // when the second size is accepted, the first was sent
		a.sizes <- conmon.Size{Width: 92, Height: 32}
	}
	_, _ = a.stdin.Write([]byte("\n"))
	a.wait(t)
	if a.err != nil || a.code != 9 {
		t.Errorf("attach: code %d, %v", a.code, a.err)
	}
	for _, want := range []string{"got word\r\n", "32 92\r\n", "/dev/pts/0\r\n"} {
		if !strings.Contains(a.stdout.String(), want) {
			t.Errorf("the client got %q, which does not contain %q", a.stdout.String(), want)
		}
	}
	if got := text(b.log(b.spec.LogPath), "stdout"); got != a.stdout.String() {
		t.Errorf("log contains %q, the client got %q", got, a.stdout.String())
	}
	if e := b.exit(); e.ExitCode != 9 {
		t.Errorf("exit record %+v", e)
	}
}

// TestTerminalReopened checks that a terminal that every process has closed may be opened again.
func TestTerminalReopened(t *testing.T) {
	b := newRuncTestbed(t, func(config map[string]any) {
		config["process"].(object)["terminal"] = true
	}, sh("echo first; exec 0</dev/null 1>/dev/null 2>/dev/null; sleep 0.3; echo second >/dev/pts/0; sleep 0.3; echo third >/dev/pts/0")...)
	b.spec.Terminal = true
	b.create()
	b.start()
	b.exit()
	if got := text(b.log(b.spec.LogPath), "stdout"); got != "first\r\nsecond\r\nthird\r\n" {
		t.Errorf("log contains %q", got)
	}
}

func TestResizeWithoutTerminal(t *testing.T) {
	b := runScript(t, "sleep 1000", nil)
	err := conmon.Resize(t.Context(), b.spec.RunDir, conmon.Size{Width: 1, Height: 1})
	if err == nil || !strings.Contains(err.Error(), "no terminal") {
		t.Errorf("error %v", err)
	}
}

// TestMalformedPackets checks that the monitor survives malformed packets and too many clients.
func TestMalformedPackets(t *testing.T) {
	b := runScript(t, "sleep 1000", func(s *conmon.Spec) { s.Stdin = true })
	for _, packet := range []string{"", "x", "{}", `{"op":"dance"}`, `{"op":`, strings.Repeat("[", 1000), strings.Repeat("x", 40<<10)} {
		c := b.dial()
		_, _ = unix.Write(c, []byte(packet))
		unix.Close(c)
	}
	for _, frame := range []string{"", "q", "r", "r123", "i", "c", "x1234", strings.Repeat("i", 36<<10)} {
		c := b.dial()
		_, _ = unix.Write(c, []byte(`{"op":"attach","stdin":true,"stdout":true}`))
		reply := make([]byte, 100)
		_, _ = unix.Read(c, reply)
		_, _ = unix.Write(c, []byte(frame))
		unix.Close(c)
	}
	var open []int
	for range 100 { // beyond the limit
		open = append(open, b.dial())
	}
	for _, c := range open {
		unix.Close(c)
	}
	b.eventually("reply of the monitor", func() bool { return conmon.ReopenLog(t.Context(), b.spec.RunDir) == nil })
	b.eventually("no clients", func() bool { return b.clients() == 1 })
}

// TestAttachLeaksNothing checks that Attach leaves no descriptors and goroutines behind.
func TestAttachLeaksNothing(t *testing.T) {
	b := runScript(t, "exec cat", func(s *conmon.Spec) { s.Stdin = true })
	b.start()
	fds, goroutines := openFDs(t), runtime.NumGoroutine()
	for range 5 {
		a := b.attach(true)
		a.cancel()
		a.wait(t)
		a.stdin.Close()
	}
	b.eventually("end of goroutines", func() bool { return runtime.NumGoroutine() <= goroutines })
	if now := openFDs(t); now != fds {
		t.Errorf("%d descriptors open, %d before", now, fds)
	}
}
