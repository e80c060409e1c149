package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/patience"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestLife(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	ctx := t.Context()
	c := shell("main", "echo hello $WHO; trap 'exit 3' TERM; while :; do sleep 0.1; done")
	c.Envs = []*cri.KeyValue{{Key: "WHO", Value: []byte("you")}}
	id := b.create(m, c)
	s, err := m.Get(id[:10])
	if err != nil || s.State != Created || s.PID == 0 || s.CreatedAt.IsZero() || !s.StartedAt.IsZero() {
		t.Fatalf("after create: %+v, %v", s, err)
	}
	if again := b.create(m, c); again != id {
		t.Errorf("the same request created another container: %s", again)
	}
	if err := m.Start(ctx, id); err != nil {
		t.Fatal(err)
	}
	b.log("main", "stdout F hello you")
	if s, _ = m.Get(id); s.State != Running || s.StartedAt.Before(s.CreatedAt) {
		t.Errorf("after start: %+v", s)
	}
	if err := m.Start(ctx, id); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("second start: %v", err)
	}
	if _, err := m.Create(ctx, "pod", c, nil); !errdefs.IsAlreadyExists(err) {
		t.Errorf("create with the name of a running container: %v", err)
	}
	if err := m.Stop(ctx, id, patience.For(20*time.Second)); err != nil {
		t.Fatal(err)
	}
	if s, _ = m.Get(id); s.State != Exited || s.ExitCode != 3 || s.Reason != ReasonError || s.FinishedAt.Before(s.StartedAt) {
		t.Errorf("after stop: %+v", s)
	}
	for range 2 {
		if err := m.Stop(ctx, id, time.Second); err != nil {
			t.Errorf("stop after stop: %v", err)
		}
		if err := m.Remove(ctx, id); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	if _, err := m.Get(id); !errdefs.IsNotFound(err) {
		t.Errorf("after remove: %v", err)
	}
}

func TestExitCodes(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	for script, want := range map[string]struct {
		code   int32
		reason string
	}{
		"exit 0":       {0, ReasonCompleted},
		"exit 7":       {7, ReasonError},
		"kill -9 $$":   {0, ReasonCompleted}, // the first process of a PID namespace cannot kill itself
		"exec /bin/no": {127, ReasonError},
	} {
		id := b.run(m, shell(strings.ReplaceAll(script, "/", "."), script))
		if s := b.waitExit(m, id); s.ExitCode != want.code || s.Reason != want.reason {
			t.Errorf("%s: code %d, %s", script, s.ExitCode, s.Reason)
		}
	}
}

func TestCannotRun(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	c := shell("no", "")
	c.Command = []string{"/does/not/exist"}
	if id, err := m.Create(t.Context(), "pod", c, nil); err == nil {
		err = m.Start(t.Context(), id)
		if s, _ := m.Get(id); err == nil || s.Reason != ReasonContainerCannotRun || s.ExitCode != 128 {
			t.Errorf("%v, %+v", err, s)
		}
	} else if !strings.Contains(err.Error(), "/does/not/exist") {
		t.Errorf("the message of the runtime is missing: %v", err)
	}
}

// TestStartFails checks that a container whose start fails has exited, with a reason that
// says that its process never ran.
func TestStartFails(t *testing.T) {
	b := newTestBed(t)
	script := filepath.Join(t.TempDir(), "runc")
	text := "#!/bin/sh\nfor a; do case $a in start) echo '{\"level\":\"error\",\"msg\":\"injected start failure\"}' >&3; exit 1;; esac; done\nexec " + b.runtime.Path + " \"$@\"\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	b.runtime.Path = script
	m, _ := b.manager()
	id := b.create(m, shell("no", "exit 0"))
	err := m.Start(t.Context(), id)
	if err == nil || !strings.Contains(err.Error(), "injected start failure") {
		t.Errorf("start: %v", err)
	}
	s := b.waitExit(m, id)
	if s.ExitCode != 128 || s.Reason != ReasonContainerCannotRun || !strings.Contains(s.Message, "injected start failure") {
		t.Errorf("%+v", s)
	}
}

func TestReopenLog(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	id := b.run(m, shell("log", "while :; do echo tick; sleep 0.05; done"))
	b.log("log", "tick")
	if err := os.Rename(filepath.Join(b.logs, "log.log"), filepath.Join(b.logs, "log.old")); err != nil {
		t.Fatal(err)
	}
	if err := m.ReopenLog(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	b.log("log", "tick")
}

// TestMonitorKilled checks that a container continues after its monitor was killed.
func TestMonitorKilled(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	id := b.run(m, shell("orphan", "trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done"))
	b.log("orphan", "up")
	c, _ := m.find(id)
	_, monitor := c.refs()
	if err := monitor.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-c.monitorExited
	for end := patience.Until(5 * time.Second); time.Now().Before(end); {
		if s, _ := m.Get(id); s.Message != "" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if s, _ := m.Get(id); s.State != Running || !strings.Contains(s.Message, "monitor") {
		t.Errorf("%+v", s)
	}
	if err := m.Stop(t.Context(), id, patience.For(20*time.Second)); err != nil {
		t.Fatal(err)
	}
	// The daemon is the parent of the container now, so the kernel reports the exit code.
	if s, _ := m.Get(id); s.ExitCode != 5 || s.Message == "" {
		t.Errorf("%+v", s)
	}
}
