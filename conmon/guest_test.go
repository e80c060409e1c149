package conmon_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/internal/proc"
)

// newGuestTestbed makes a testbed for a container in a guest of the fake runtime.
func newGuestTestbed(t *testing.T, mode string) *testbed {
	t.Helper()
	return runScript(t, "echo up; exec sleep 1000", func(s *conmon.Spec) {
		s.Guest = true
		s.RuntimeEnv = append(s.RuntimeEnv, "FAKE="+mode)
	})
}

func TestStartInGuest(t *testing.T) {
	b := newGuestTestbed(t, "")
	for range 2 { // a restarted daemon may send the request again
		if _, err := conmon.Start(t.Context(), b.spec.RunDir); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(b.calls(), " start "); n != 1 {
		t.Errorf("the runtime's start was called %d times", n)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "exit"), []byte("6"), 0o600); err != nil {
		t.Fatal(err)
	}
	if e := b.exit(); e.ExitCode != 6 || e.Unknown {
		t.Errorf("exit record %+v", e)
	}
}

// TestStartThatHangs checks that while the runtime's start hangs, the monitor answers other
// requests, and the container can be killed.
func TestStartThatHangs(t *testing.T) {
	b := newGuestTestbed(t, "hangStart")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := make(chan error, 1)
	go func() { first <- startError(ctx, b) }()
	b.eventually("the runtime's start", func() bool { return b.exists("starting") })

	answers := func(what string, ask func(context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := ask(ctx); err != nil {
			t.Errorf("%s during the start: %v", what, err)
		}
	}
	answers("reopening the log", func(ctx context.Context) error { return conmon.ReopenLog(ctx, b.spec.RunDir) })
	a := b.attach(false)
	// The daemon disconnects, and the next daemon sends the request again.
	cancel()
	if err := <-first; err == nil {
		t.Error("a start that hangs returned no error")
	}
	second := make(chan error, 1)
	go func() { second <- startError(t.Context(), b) }()
	time.Sleep(100 * time.Millisecond)
	if n := strings.Count(b.calls(), " start "); n != 1 {
		t.Errorf("the runtime's start was called %d times", n)
	}
	starter, found := proc.Find(b.startLine()...)
	if !found {
		t.Fatal("the runtime's start is not running")
	}
	answers("ending the container", func(ctx context.Context) error { return conmon.Abandon(ctx, b.spec.RunDir) })
	if err := <-second; err == nil {
		t.Error("a start of a killed container returned no error")
	}
	if e := b.exit(); e.ExitCode != 128+int32(unix.SIGKILL) {
		t.Errorf("exit record %+v", e)
	}
	a.wait(t)
	b.eventually("the end of the runtime's start", func() bool { return !starter.Alive() })
}

// startError sends a start request and returns the error.
func startError(ctx context.Context, b *testbed) error {
	_, err := conmon.Start(ctx, b.spec.RunDir)
	return err
}

// startLine returns the command line of the runtime's start.
func (b *testbed) startLine() []string {
	return append(b.spec.Runtime[:len(b.spec.Runtime):len(b.spec.Runtime)],
		"--log", filepath.Join(b.spec.RunDir, conmon.RuntimeLog), "--log-format", "json", "start", b.spec.ID)
}
