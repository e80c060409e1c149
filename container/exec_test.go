package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/patience"
	"github.com/criserver/criserver/oci/runtime"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestExecSync(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	id := b.run(m, shell("main", "sleep 1000"))
	for script, want := range map[string]struct {
		stdout, stderr string
		code           int32
	}{
		"echo out; echo err >&2":         {"out\n", "err\n", 0},
		"exit 3":                         {"", "", 3},
		"exit 255":                       {"", "", 255},
		"kill -9 $$":                     {"", "", 137},
		"sleep 1000 >/dev/null & echo x": {"x\n", "", 0},
		"sleep 1000 & echo x":            {"x\n", "", 0}, // a grandchild keeps the pipe
		"cat":                            {"", "", 0},    // stdin is empty
	} {
		out, err := m.ExecSync(t.Context(), id, []string{"sh", "-c", script}, time.Minute)
		if err != nil || string(out.Stdout) != want.stdout || string(out.Stderr) != want.stderr || out.ExitCode != want.code {
			t.Errorf("%s: %d, %q, %q, %v", script, out.ExitCode, out.Stdout, out.Stderr, err)
		}
	}
	if _, err := m.ExecSync(t.Context(), id, []string{"/no/such/program"}, 0); err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("unknown program: %v", err)
	}
	if _, err := m.ExecSync(t.Context(), id, nil, 0); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no command: %v", err)
	}
	if _, err := m.ExecSync(t.Context(), "0123", []string{"true"}, 0); !errdefs.IsNotFound(err) {
		t.Errorf("unknown container: %v", err)
	}
	if err := m.Stop(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := m.ExecSync(t.Context(), id, []string{"true"}, 0); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("exited container: %v", err)
	}
}

func TestExecOutputIsLimited(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	id := b.run(m, shell("main", "sleep 1000"))
	out, err := m.ExecSync(t.Context(), id, []string{"sh", "-c", "head -c 20000000 /dev/zero; echo end >&2; exit 2"}, time.Minute)
	if err != nil || len(out.Stdout) != runtime.MaxExecOutput || string(out.Stderr) != "end\n" || out.ExitCode != 2 {
		t.Errorf("%d bytes, %q, code %d, %v", len(out.Stdout), out.Stderr, out.ExitCode, err)
	}
}

// TestExecTimeout checks that a timeout kills the command and its children, and no other
// process.
func TestExecTimeout(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	id := b.run(m, shell("main", "sleep 1000"))
	s, _ := m.Get(id)
	before, err := b.tree.Pids(s.CgroupPath)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_, err = m.ExecSync(t.Context(), id, []string{"sh", "-c", "(sleep 1001 & sleep 1002 &); sleep 1003 & trap '' TERM; sleep 1004"}, 300*time.Millisecond)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > patience.For(10*time.Second) {
		t.Errorf("the exec took %s", took)
	}
	after := before
	for end := patience.Until(2 * time.Second); time.Now().Before(end); { // the first process of the container reaps the orphans
		if after, err = b.tree.Pids(s.CgroupPath); err != nil || len(after) == len(before) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil || len(after) != len(before) {
		for _, p := range after {
			cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p))
			t.Logf("%d: %q", p, cmd)
		}
		t.Errorf("processes before %v, after %v, %v", before, after, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := m.ExecSync(ctx, id, []string{"sleep", "1000"}, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deadline of the caller: %v", err)
	}
}

// TestExecEndsWithContainer uses a shared PID namespace, in which only the manager kills a
// command whose container has exited.
func TestExecEndsWithContainer(t *testing.T) {
	b := newTestBed(t)
	m, _ := b.manager()
	c := shell("host", "sleep 1000")
	c.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_NODE
	id := b.run(m, c)
	ended := make(chan error, 1)
	go func() {
		_, err := m.ExecSync(context.Background(), id, []string{"sleep", "1000"}, time.Hour)
		ended <- err
	}()
	time.Sleep(200 * time.Millisecond)
	if err := m.Stop(t.Context(), id, 0); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended: // the command was killed, or the runtime refused it
	case <-time.After(patience.For(20 * time.Second)):
		t.Fatal("the command is running after the exit of its container")
	}
}
