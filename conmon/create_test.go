package conmon_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/internal/proc"
)

// fake selects the behaviour of the fake runtime.
func (b *testbed) fake(mode string) { b.spec.RuntimeEnv = append(b.spec.RuntimeEnv, "FAKE="+mode) }

// calls returns the commands that the fake runtime has received.
func (b *testbed) calls() string {
	raw, _ := os.ReadFile(filepath.Join(b.dir, "calls"))
	return string(raw)
}

func (b *testbed) exists(name string) bool {
	_, err := os.Lstat(filepath.Join(b.dir, name))
	return err == nil
}

// fakeInit waits for the first process of the fake runtime's container.
func (b *testbed) fakeInit() proc.Ref {
	b.t.Helper()
	raw, err := os.ReadFile(filepath.Join(b.dir, "init"))
	if err != nil {
		b.t.Fatal(err)
	}
	pid, _ := strconv.Atoi(string(raw))
	r, err := proc.Identify(pid)
	if err != nil && !errors.Is(err, proc.ErrGone) {
		b.t.Fatal(err)
	}
	return r
}

func TestCreateFailure(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(b *testbed)
		want    string
		deletes bool
	}{
		{"the runtime refuses", func(b *testbed) { b.fake("refuse") }, `runtime create: exec "/nope": no such file`, false},
		{"the runtime writes much", func(b *testbed) { b.fake("babble") }, "the cause", false},
		{"no pid file", func(b *testbed) { b.fake("nopid") }, "pid", true},
		{"no terminal", func(b *testbed) { b.spec.Terminal = true }, "receive terminal", true},
		{"no runtime", func(b *testbed) { b.spec.Runtime = []string{"/nonexistent/runc"} }, "/nonexistent/runc", false},
		{"no log directory", func(b *testbed) { b.spec.LogPath = b.dir + "/none/log" }, "no such file", false},
		{"log is a link", func(b *testbed) { _ = os.Symlink("/dev/null", b.spec.LogPath) }, "open log", false},
		{"log is a FIFO", func(b *testbed) { _ = unix.Mkfifo(b.spec.LogPath, 0o600) }, "open log", false},
		{"log is a directory", func(b *testbed) { _ = os.Mkdir(b.spec.LogPath, 0o700) }, "open log", false},
		{"no run directory", func(b *testbed) { b.spec.RunDir += "/none" }, "run directory", false},
		{"relative path", func(b *testbed) { b.spec.Bundle = "bundle" }, "not absolute", false},
		{"no monitor", func(b *testbed) { b.launcher.Path = "/nonexistent/conmon" }, "start monitor", false},
		{"no answer", func(b *testbed) { b.launcher.Path = "/bin/true" }, "monitor exited", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newTestbed(t)
			tt.prepare(b)
			before := openFDs(t)
			_, _, err := b.launcher.Create(t.Context(), b.spec)
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), b.spec.ID) {
				t.Errorf("error %q does not contain %q", err, tt.want)
			}
			if got := strings.Contains(b.calls(), "delete --force "+b.spec.ID); got != tt.deletes {
				t.Errorf("deleted: %t, want %t; calls:\n%s", got, tt.deletes, b.calls())
			}
			if b.exists("init") {
				b.waitExited(b.fakeInit())
			}
			for _, name := range []string{"run/" + conmon.ControlSocket, "run/console", "exits/exit"} {
				if b.exists(name) {
					t.Errorf("%s still exists", name)
				}
			}
			if now := openFDs(t); now != before {
				t.Errorf("%d descriptors open, %d before", now, before)
			}
		})
	}
}

func TestCreateIsCanceled(t *testing.T) {
	b := newTestbed(t)
	b.fake("hang")
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the caller gave up")
	done := make(chan error)
	go func() {
		_, _, err := b.launcher.Create(ctx, b.spec)
		done <- err
	}()
	b.eventually("a hanging create", func() bool { return b.exists("hangs") })
	half := b.fakeInit()
	cancel(cause)
	if err := <-done; !errors.Is(err, cause) {
		t.Fatalf("error %v, want the cause of the context's end", err)
	}
	// Create returns only after everything was deleted.
	if half.Alive() {
		t.Error("the process of the container is still running")
	}
	if !strings.Contains(b.calls(), "delete --force "+b.spec.ID) {
		t.Errorf("the container was not deleted; calls:\n%s", b.calls())
	}
	if b.exists("exits/exit") || b.exists("run/"+conmon.ControlSocket) {
		t.Error("an exit record or a control socket still exists")
	}
}

// daemon starts a process that launches the monitor and can be killed.
func (b *testbed) daemon() (*exec.Cmd, *bufio.Reader) {
	b.t.Helper()
	raw, err := json.Marshal(b.spec)
	if err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), launchEnv+"="+string(raw), "MONITOR="+monitorBinary)
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, bufio.NewReader(out)
}

func TestDaemonDiesDuringCreate(t *testing.T) {
	b := newTestbed(t)
	b.fake("hang")
	daemon, _ := b.daemon()
	b.eventually("a hanging create", func() bool { return b.exists("hangs") })
	half := b.fakeInit()
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	b.waitExited(half)
	b.eventually("deletion", func() bool { return strings.Contains(b.calls(), "delete --force "+b.spec.ID) })
	b.eventually("removal of the socket", func() bool { return !b.exists("run/" + conmon.ControlSocket) })
	if b.exists("exits/exit") {
		t.Error("there is an exit record of a container that was never created")
	}
}

func TestDaemonDiesAfterCreate(t *testing.T) {
	b := newTestbed(t)
	b.spec.RuntimeEnv = append(b.spec.RuntimeEnv, "FAKE_SCRIPT=echo on; exit 7")
	daemon, out := b.daemon()
	line, err := out.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "created ") {
		t.Fatalf("the daemon wrote %q, %v", line, err)
	}
	// A SIGTERM to the daemon's process group must not end the monitor.
	if err := unix.Kill(-daemon.Process.Pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = daemon.Wait()
	if err := conmon.ReopenLog(t.Context(), b.spec.RunDir); err != nil {
		t.Error(err)
	}
	b.start()
	if e := b.exit(); e.ExitCode != 7 || e.ID != b.spec.ID {
		t.Errorf("exit record %+v", e)
	}
	if got := text(b.log(b.spec.LogPath), "stdout"); got != "on\n" {
		t.Errorf("log contains %q", got)
	}
}

// TestUnreadAnswer checks that if the daemon closes its pipe without reading the answer, the
// monitor deletes the container.
func TestUnreadAnswer(t *testing.T) {
	b := newTestbed(t)
	b.spec.Version = conmon.Version
	raw, err := json.Marshal(b.spec)
	if err != nil {
		t.Fatal(err)
	}
	spec := filepath.Join(b.dir, "spec")
	if err := os.WriteFile(spec, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	monitor := exec.Command(monitorBinary, "monitor")
	monitor.ExtraFiles = []*os.File{file, w}
	if err := monitor.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	b.eventually("an answer", func() bool {
		n, err := unix.IoctlGetInt(int(r.Fd()), unix.TIOCINQ)
		return err == nil && n > 0
	})
	init := b.fakeInit()
	if !init.Alive() {
		t.Error("the container exited before the pipe was closed")
	}
	r.Close()
	if err := monitor.Wait(); err != nil {
		t.Error(err)
	}
	if init.Alive() || !strings.Contains(b.calls(), "delete --force "+b.spec.ID) {
		t.Errorf("the container was not deleted; calls:\n%s", b.calls())
	}
	if b.exists("exits/exit") || b.exists("run/"+conmon.ControlSocket) {
		t.Error("an exit record or a control socket still exists")
	}
}

// TestRuntimeOutputIsNotLogged checks that the output of the runtime's create is not in the
// container's log.
func TestRuntimeOutputIsNotLogged(t *testing.T) {
	b := newTestbed(t)
	b.fake("shout")
	b.spec.RuntimeEnv = append(b.spec.RuntimeEnv, "FAKE_SCRIPT=echo mine")
	b.create()
	b.start()
	b.exit()
	if got := b.log(b.spec.LogPath); len(got) != 1 || got[0].text != "mine" {
		t.Errorf("log contains %q", got)
	}
}
