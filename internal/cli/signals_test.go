package cli

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/internal/patience"
)

// fakeTarget counts the effects of signals.
type fakeTarget struct {
	reloads, dumps atomic.Int32
	block          chan struct{} // Reload waits for it
}

func (f *fakeTarget) Reload(ctx context.Context) error {
	f.reloads.Add(1)
	select {
	case <-f.block:
	case <-ctx.Done():
	}
	return ctx.Err()
}

func (f *fakeTarget) DumpStacks() { f.dumps.Add(1) }

func signalSelf(t *testing.T, sig unix.Signal) {
	t.Helper()
	if err := unix.Kill(os.Getpid(), sig); err != nil {
		t.Fatal(err)
	}
}

func waitUntil(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := patience.Until(10 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timeout: %s", what)
		}
	}
}

// TestHandleSignals checks the effects of signals, that signals during a reload cause one more
// reload, that a reload does not delay other signals, and that the end cancels a reload.
func TestHandleSignals(t *testing.T) {
	f := &fakeTarget{block: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	stop := handleSignals(ctx, f)
	signalSelf(t, unix.SIGHUP)
	waitUntil(t, "first reload", func() bool { return f.reloads.Load() == 1 })
	cancel() // the signals must not end a daemon that is stopping
	for range 3 {
		signalSelf(t, unix.SIGHUP)
	}
	signalSelf(t, unix.SIGUSR2)
	signalSelf(t, unix.SIGPIPE)
	signalSelf(t, unix.SIGUSR1)
	waitUntil(t, "stacks", func() bool { return f.dumps.Load() == 1 })
	f.block <- struct{}{}
	waitUntil(t, "second reload", func() bool { return f.reloads.Load() == 2 })
	stop()
	if n := f.reloads.Load(); n > 2 {
		t.Errorf("%d reloads, want 2", n)
	}
}

// waitForSignals makes the test binary wait for signals as a command does: see TestSecondSignal.
const waitForSignals = "CRISERVER_TEST_WAIT_FOR_SIGNALS"

func TestMain(m *testing.M) {
	if os.Getenv(waitForSignals) != "" {
		ctx := stopContext()
		_, _ = os.Stdout.WriteString("ready\n")
		<-ctx.Done()
		_, _ = os.Stdout.WriteString("stopping\n")
		select {} // an operation that does not end
	}
	os.Exit(m.Run())
}

// TestSecondSignal checks that the first signal ends the context and the second one the process,
// also if the process was started with the signal ignored.
func TestSecondSignal(t *testing.T) {
	for name, tc := range map[string]struct {
		signal  syscall.Signal
		command string
		code    int // exit code, or -1 for the end by the signal
	}{
		"SIGTERM":        {syscall.SIGTERM, `exec "$0"`, -1},
		"SIGINT":         {syscall.SIGINT, `exec "$0"`, -1},
		"ignored SIGINT": {syscall.SIGINT, `trap "" INT; exec "$0"`, 130},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("/bin/sh", "-c", tc.command, os.Args[0])
			cmd.Env = append(os.Environ(), waitForSignals+"=1")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"ready\n", "stopping\n"} {
				b := make([]byte, len(want))
				if _, err := out.Read(b); err != nil || !strings.Contains(string(b), strings.TrimSpace(want)) {
					t.Fatalf("output %q, %v; want %q", b, err, want)
				}
				if err := cmd.Process.Signal(tc.signal); err != nil {
					t.Fatal(err)
				}
			}
			_ = cmd.Wait()
			ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if !ok || tc.code < 0 && (!ws.Signaled() || ws.Signal() != tc.signal) || tc.code >= 0 && ws.ExitStatus() != tc.code {
				t.Errorf("the process ended with %s, want %s or exit code %d", cmd.ProcessState, tc.signal, tc.code)
			}
		})
	}
}
