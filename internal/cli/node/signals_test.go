package node

import (
	"context"
	"os"
	"sync/atomic"
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
