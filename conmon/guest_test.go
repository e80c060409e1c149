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

// newGuestBed makes a container in a guest, which the fake runtime starts.
func newGuestBed(t *testing.T, mode string) *bed {
	t.Helper()
	return runScript(t, "echo up; exec sleep 1000", func(s *conmon.Spec) {
		s.Guest = true
		s.RuntimeEnv = append(s.RuntimeEnv, "FAKE="+mode)
	})
}

func TestStartInGuest(t *testing.T) {
	b := newGuestBed(t, "")
	for range 2 { // a daemon that has died since may ask again
		if err := conmon.Start(t.Context(), b.spec.RunDir); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(b.calls(), " start "); n != 1 {
		t.Errorf("the runtime was asked %d times to start", n)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "exit"), []byte("6"), 0o600); err != nil {
		t.Fatal(err)
	}
	if e := b.exit(); e.ExitCode != 6 || e.Unknown {
		t.Errorf("exit record %+v", e)
	}
}

// While the runtime's start hangs, the monitor does all else, and the container
// can be ended.
func TestStartThatHangs(t *testing.T) {
	b := newGuestBed(t, "hangStart")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := make(chan error, 1)
	go func() { first <- conmon.Start(ctx, b.spec.RunDir) }()
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
	// The daemon leaves, and the next one asks again.
	cancel()
	if err := <-first; err == nil {
		t.Error("a start that hangs has succeeded")
	}
	second := make(chan error, 1)
	go func() { second <- conmon.Start(t.Context(), b.spec.RunDir) }()
	time.Sleep(100 * time.Millisecond)
	if n := strings.Count(b.calls(), " start "); n != 1 {
		t.Errorf("the runtime was asked %d times to start", n)
	}
	starter, found := proc.Find(b.startLine()...)
	if !found {
		t.Fatal("the runtime's start is not running")
	}
	answers("ending the container", func(ctx context.Context) error { return conmon.Abandon(ctx, b.spec.RunDir) })
	if err := <-second; err == nil {
		t.Error("a start that was ended has succeeded")
	}
	if e := b.exit(); e.ExitCode != 128+int32(unix.SIGKILL) {
		t.Errorf("exit record %+v", e)
	}
	a.wait(t)
	b.eventually("the end of the runtime's start", func() bool { return !starter.Alive() })
}

// startLine is the command line of the runtime's start.
func (b *bed) startLine() []string {
	return append(b.spec.Runtime[:len(b.spec.Runtime):len(b.spec.Runtime)],
		"--log", filepath.Join(b.spec.RunDir, conmon.RuntimeLog), "--log-format", "json", "start", b.spec.ID)
}
