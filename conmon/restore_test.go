package conmon_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/internal/proc"
)

// newRestoreTestbed makes a testbed for a container that the fake runtime restores.
func newRestoreTestbed(t *testing.T, mode string) *testbed {
	t.Helper()
	needRoot(t) // the monitor gives the runtime a mount namespace
	b := runScript(t, "echo up; exec sleep 1000", func(s *conmon.Spec) {
		s.RestoreImages = filepath.Dir(s.RunDir) + "/images"
		s.RestoreArgs = []string{"--file-locks=true"}
		s.RuntimeEnv = append(s.RuntimeEnv, "FAKE="+mode)
	})
	if err := os.Mkdir(b.spec.RestoreImages, 0o700); err != nil {
		t.Fatal(err)
	}
	if b.started.Init != (proc.Ref{}) || b.calls() != "" {
		t.Fatalf("before the start: process %+v, calls of the runtime %q", b.started.Init, b.calls())
	}
	return b
}

// TestRestore checks that the monitor restores the container when the daemon requests it, and then
// monitors it like any other container, without the mounts of the runtime.
func TestRestore(t *testing.T) {
	b := newRestoreTestbed(t, "")
	for range 2 { // a restarted daemon may send the request again
		init, err := conmon.Start(t.Context(), b.spec.RunDir)
		if err != nil {
			t.Fatal(err)
		}
		if !init.Alive() || b.started.Init != (proc.Ref{}) && b.started.Init != init {
			t.Fatalf("first process %+v, want the running process %+v", init, b.started.Init)
		}
		b.started.Init = init
	}
	if n := strings.Count(b.calls(), " restore "); n != 1 || !strings.Contains(b.calls(), "--file-locks=true "+b.spec.ID) {
		t.Errorf("calls of the runtime, want one restore:\n%s", b.calls())
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), b.spec.Bundle) {
		t.Errorf("a mount of the runtime is left (error %v)", err)
	}
	b.eventually("output", func() bool { return b.exists("log") && text(b.log(b.spec.LogPath), "stdout") == "up\n" })
	if err := b.started.Init.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if e := b.exit(); e.Signal != int(unix.SIGTERM) || e.Unknown {
		t.Errorf("exit record %+v", e)
	}
}

// TestRestoredProcessExitsAtOnce checks that the exit status of a process that exits before the
// runtime does is known.
func TestRestoredProcessExitsAtOnce(t *testing.T) {
	b := newRestoreTestbed(t, "fast")
	if _, err := conmon.Start(t.Context(), b.spec.RunDir); err != nil {
		t.Fatal(err)
	}
	if e := b.exit(); e.ExitCode != 5 || e.Unknown {
		t.Errorf("exit record %+v, want exit code 5", e)
	}
	if got := text(b.log(b.spec.LogPath), "stdout"); got != "up\n" {
		t.Errorf("log contains %q", got)
	}
}

// TestRestoreFails checks that a restore that fails leaves no process, and reports the message of
// the runtime. The container can only be abandoned then.
func TestRestoreFails(t *testing.T) {
	b := newRestoreTestbed(t, "failStart")
	_, err := conmon.Start(t.Context(), b.spec.RunDir)
	if err == nil || !strings.Contains(err.Error(), "criu failed: type RESTORE errno 17") {
		t.Errorf("error %v, want the message of the runtime", err)
	}
	b.waitExited(b.fakeInit())
	if !strings.Contains(b.calls(), "delete --force "+b.spec.ID) {
		t.Errorf("the container was not deleted; calls:\n%s", b.calls())
	}
	if err := conmon.Abandon(t.Context(), b.spec.RunDir); err != nil {
		t.Error(err)
	}
	if e := b.exit(); e.ExitCode != 128+int32(unix.SIGKILL) {
		t.Errorf("exit record %+v", e)
	}
}

// TestAbandonBeforeRestore checks that a container that was never started can be abandoned.
func TestAbandonBeforeRestore(t *testing.T) {
	b := newRestoreTestbed(t, "")
	if err := conmon.Abandon(t.Context(), b.spec.RunDir); err != nil {
		t.Fatal(err)
	}
	if e := b.exit(); e.ExitCode != 128+int32(unix.SIGKILL) || b.calls() != "" {
		t.Errorf("exit record %+v, calls of the runtime %q", e, b.calls())
	}
}

// hangingRestore starts a restore that hangs, and returns the runtime and the restored process.
func hangingRestore(t *testing.T) (b *testbed, restorer, init proc.Ref, result chan error) {
	t.Helper()
	b = newRestoreTestbed(t, "hangStart")
	result = make(chan error, 1)
	go func() { result <- startError(context.Background(), b) }()
	b.eventually("the runtime's restore", func() bool { return b.exists("starting") })
	init = b.fakeInit()
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(init.PID) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, fields, _ := strings.Cut(string(stat), ") ")
	parent, _ := strconv.Atoi(strings.Fields(fields)[1])
	if restorer, err = proc.Identify(parent); err != nil || parent == b.monitor.PID {
		t.Fatalf("parent of the restored process: %d, %v", parent, err)
	}
	return b, restorer, init, result
}

// TestAbandonDuringRestore checks that an abandoned restore leaves no process.
func TestAbandonDuringRestore(t *testing.T) {
	b, restorer, init, result := hangingRestore(t)
	if err := conmon.Abandon(t.Context(), b.spec.RunDir); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err == nil {
		t.Error("a start of an abandoned container returned no error")
	}
	if restorer.Alive() || init.Alive() {
		t.Error("a process is left")
	}
	if e := b.exit(); e.ExitCode != 128+int32(unix.SIGKILL) {
		t.Errorf("exit record %+v", e)
	}
}

// TestMonitorIsKilledDuringRestore checks that the runtime does not outlive the monitor.
func TestMonitorIsKilledDuringRestore(t *testing.T) {
	b, restorer, init, result := hangingRestore(t)
	if err := b.monitor.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err == nil {
		t.Error("a start without a monitor returned no error")
	}
	b.waitExited(restorer)
	_ = init.Signal(unix.SIGKILL) // the daemon kills the cgroup
}
