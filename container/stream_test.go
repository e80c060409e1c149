package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/patience"
)

// buffer is a writer that tests can read at the same time.
type buffer struct {
	mu sync.Mutex
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

func (b *buffer) wait(t *testing.T, want string) {
	t.Helper()
	for end := patience.Until(10 * time.Second); time.Now().Before(end); {
		if strings.Contains(b.String(), want) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("no %q in %q", want, b.String())
}

// pids waits until a container has this number of processes.
func (b *testBed) pids(m *Manager, id string, want int) {
	b.t.Helper()
	s, err := m.Get(id)
	if err != nil {
		b.t.Fatal(err)
	}
	var pids []int
	for end := patience.Until(10 * time.Second); time.Now().Before(end); {
		if pids, err = b.tree.Pids(s.CgroupPath); err == nil && len(pids) == want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, p := range pids {
		cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p))
		b.t.Logf("%d: %q", p, cmd)
	}
	b.t.Fatalf("processes %v, %v; want %d", pids, err, want)
}

func sh(script string) []string { return []string{"sh", "-c", script} }

func TestExec(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	id := b.run(m, shell("main", "sleep 1000"))
	for script, want := range map[string]struct {
		stdin, stdout, stderr string
		code                  int32
	}{
		"echo out; echo err >&2; exit 3": {"", "out\n", "err\n", 3},
		"kill -9 $$":                     {"", "", "", 137},
		"cat; echo end":                  {"input", "inputend\n", "", 0},
		"exec 0<&-; echo closed":         {strings.Repeat("x", 1<<20), "closed\n", "", 0}, // the command does not read its input
		"sleep 1000 & echo x":            {"", "x\n", "", 0},                              // a grandchild keeps the pipes
		"echo x > /dev/stdout":           {"", "x\n", "", 0},
	} {
		var stdout, stderr buffer
		code, err := m.Exec(t.Context(), id, sh(script), false, Streams{Stdin: strings.NewReader(want.stdin), Stdout: &stdout, Stderr: &stderr})
		if err != nil || code != want.code || stdout.String() != want.stdout || stderr.String() != want.stderr {
			t.Errorf("%s: %d, %q, %q, %v", script, code, stdout.String(), stderr.String(), err)
		}
	}
	if code, err := m.Exec(t.Context(), id, sh("cat; echo dropped; exit 4"), false, Streams{}); err != nil || code != 4 {
		t.Errorf("no streams: %d, %v", code, err)
	}
	if _, err := m.Exec(t.Context(), id, []string{"/no/such/program"}, false, Streams{}); err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("unknown program: %v", err)
	}
	if _, err := m.Exec(t.Context(), id, []string{"/no/such/program"}, true, Streams{}); err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("unknown program on a terminal: %v", err)
	}
	if _, err := m.Exec(t.Context(), "0123", sh("true"), false, Streams{}); !errdefs.IsNotFound(err) {
		t.Errorf("unknown container: %v", err)
	}
}

// slow delays the first bytes, like a distant client.
type slow struct {
	n    int64
	once sync.Once
}

func (s *slow) Write(p []byte) (int, error) {
	s.once.Do(func() { time.Sleep(300 * time.Millisecond) })
	s.n += int64(len(p))
	return len(p), nil
}

// TestExecOutputIsComplete checks that Exec returns the exit code after a slow client has
// read the complete output.
func TestExecOutputIsComplete(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	id := b.run(m, shell("main", "sleep 1000"))
	for _, tty := range []bool{false, true} {
		for _, size := range []int64{1000, 60_000, 3_000_000} {
			var out slow
			code, err := m.Exec(t.Context(), id, sh(fmt.Sprintf("head -c %d /dev/zero; exit 7", size)), tty, Streams{Stdout: &out})
			if err != nil || code != 7 || out.n != size {
				t.Errorf("terminal %v: %d of %d bytes, code %d, %v", tty, out.n, size, code, err)
			}
		}
	}
}

func TestExecTerminal(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	id := b.run(m, shell("main", "sleep 1000"))
	in, keys := io.Pipe()
	defer keys.Close()
	sizes := make(chan Size, 1)
	sizes <- Size{Width: 100, Height: 30}
	var out buffer
	ended := make(chan error, 1)
	go func() {
		code, err := m.Exec(t.Context(), id, sh("trap 'stty size' WINCH; stty size; echo TERM=$TERM; tty >/dev/null && echo tty; while ! read x; do :; done; echo got $x; exit 5"), true,
			Streams{Stdin: in, Stdout: &out, Resize: sizes})
		if err == nil && code != 5 {
			err = fmt.Errorf("code %d", code)
		}
		ended <- err
	}()
	out.wait(t, "TERM=xterm\r\ntty\r\n")
	sizes <- Size{Width: 80, Height: 24}
	out.wait(t, "24 80\r\n")
	if _, err := keys.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	out.wait(t, "got hello\r\n")
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if strings.Count(out.String(), "hello") != 2 {
		t.Errorf("the output has no single echo: %q", out.String())
	}
}

// TestExecEndsWithItsClient checks that the command and its children are killed when the
// client disconnects.
func TestExecEndsWithItsClient(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	id := b.run(m, shell("main", "sleep 1000"))
	goroutines := runtime.NumGoroutine()
	gone := errors.New("the client left")
	for _, tty := range []bool{false, true} {
		ctx, cancel := context.WithCancelCause(t.Context())
		in, keys := io.Pipe()
		var out buffer
		ended := make(chan error, 1)
		go func() {
			_, err := m.Exec(ctx, id, sh("(sleep 1001 & sleep 1002 &); trap '' TERM HUP; echo up; sleep 1003"), tty, Streams{Stdin: in, Stdout: &out})
			ended <- err
		}()
		out.wait(t, "up")
		cancel(gone)
		if err := <-ended; !errors.Is(err, gone) {
			t.Errorf("got %v", err)
		}
		_ = keys.Close()
		b.pids(m, id, 1)
	}
	// A writer that fails is a client that has disconnected.
	if _, err := m.Exec(t.Context(), id, sh("while :; do echo x; sleep 0.01; done"), false, Streams{Stdout: broken{}}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v", err)
	}
	b.pids(m, id, 1)
	for end := patience.Until(10 * time.Second); time.Now().Before(end); {
		if runtime.NumGoroutine() <= goroutines {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), goroutines)
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestExecDuringStop checks that an exec works during a stop, and ends with the container.
func TestExecDuringStop(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	id := b.run(m, shell("main", "trap 'echo asked' TERM; echo ready; while :; do sleep 0.1; done"))
	b.log("main", "ready")
	stopped := make(chan error, 1)
	go func() { stopped <- m.Stop(t.Context(), id, time.Hour) }()
	b.log("main", "asked")
	var out buffer
	if code, err := m.Exec(t.Context(), id, sh("echo in"), false, Streams{Stdout: &out}); err != nil || code != 0 || out.String() != "in\n" {
		t.Errorf("%d, %q, %v", code, out.String(), err)
	}
	// An exec ends with its container.
	ended := make(chan error, 1)
	go func() {
		_, err := m.Exec(t.Context(), id, sh("echo up; sleep 1000"), false, Streams{Stdout: &out})
		ended <- err
	}()
	out.wait(t, "up")
	if err := m.Stop(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	<-ended
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if _, err := m.Exec(t.Context(), id, sh("true"), false, Streams{}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("exited container: %v", err)
	}
}

func TestAttach(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	c := shell("main", "while read x; do echo out $x; echo err $x >&2; done; echo end; sleep 1000")
	c.Stdin, c.StdinOnce = true, true
	id := b.run(m, c)

	// A client without stdin disconnects, and the container continues.
	ctx, leave := context.WithCancel(t.Context())
	var seen buffer
	left := make(chan error, 1)
	go func() { left <- m.Attach(ctx, id, Streams{Stdout: &seen}) }()
	in, keys := io.Pipe()
	var out, errs buffer
	ended := make(chan error, 1)
	go func() { ended <- m.Attach(t.Context(), id, Streams{Stdin: in, Stdout: &out, Stderr: &errs}) }()
	end := patience.Until(10 * time.Second)
	for i := 0; !strings.Contains(seen.String(), "out") || !strings.Contains(errs.String(), "err"); i++ {
		if time.Now().After(end) {
			t.Fatalf("seen %q, out %q, err %q", seen.String(), out.String(), errs.String())
		}
		if _, err := fmt.Fprintln(keys, i); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("disconnected: %v", err)
	}
	if err := keys.Close(); err != nil {
		t.Fatal(err)
	}
	out.wait(t, "end")
	if s, err := m.Get(id); err != nil || s.State != Running {
		t.Errorf("state %v, %v", s.State, err)
	}
	// The input of the container is closed now. Clients can still attach.
	var late buffer
	lateEnded := make(chan error, 1)
	go func() {
		lateEnded <- m.Attach(t.Context(), id, Streams{Stdin: strings.NewReader("x\n"), Stdout: &late})
	}()
	if err := m.Stop(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("exit of the container: %v", err)
	}
	<-lateEnded // the attach was refused or has ended
	if err := m.Attach(t.Context(), id, Streams{Stdout: &late}); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("exited container: %v", err)
	}
	if err := m.Attach(t.Context(), "0123", Streams{}); !errdefs.IsNotFound(err) {
		t.Errorf("unknown container: %v", err)
	}
}

func TestAttachTerminal(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	c := shell("main", "while read x; do stty size; echo got $x; done")
	c.Stdin, c.Tty = true, true
	id := b.run(m, c)
	in, keys := io.Pipe()
	defer keys.Close()
	sizes := make(chan Size, 1)
	sizes <- Size{Width: 91, Height: 17}
	var out buffer
	ended := make(chan error, 1)
	go func() { ended <- m.Attach(t.Context(), id, Streams{Stdin: in, Stdout: &out, Resize: sizes}) }()
	end := patience.Until(10 * time.Second)
	for i := 0; !strings.Contains(out.String(), "17 91\r\n"); i++ {
		if time.Now().After(end) {
			t.Fatalf("out %q", out.String())
		}
		if _, err := fmt.Fprintln(keys, "x"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := keys.Write([]byte{4}); err != nil { // Ctrl-D
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	b.waitExit(m, id)
}
