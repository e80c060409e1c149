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

// fake sets what the fake runtime does wrong.
func (b *bed) fake(mode string) { b.spec.RuntimeEnv = append(b.spec.RuntimeEnv, "FAKE="+mode) }

// calls are the runtime commands that were run.
func (b *bed) calls() string {
	raw, _ := os.ReadFile(filepath.Join(b.dir, "calls"))
	return string(raw)
}

func (b *bed) exists(name string) bool {
	_, err := os.Lstat(filepath.Join(b.dir, name))
	return err == nil
}

// fakeInit is the first process of the fake runtime's container.
func (b *bed) fakeInit() proc.Ref {
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
		spoil   func(b *bed)
		want    string
		deletes bool
	}{
		{"the runtime refuses", func(b *bed) { b.fake("refuse") }, `runtime create: exec "/nope": no such file`, false},
		{"the runtime babbles", func(b *bed) { b.fake("babble") }, "the cause", false},
		{"no pid file", func(b *bed) { b.fake("nopid") }, "pid", true},
		{"no terminal", func(b *bed) { b.spec.Terminal = true }, "receive terminal", true},
		{"no runtime", func(b *bed) { b.spec.Runtime = []string{"/nonexistent/runc"} }, "/nonexistent/runc", false},
		{"no log directory", func(b *bed) { b.spec.LogPath = b.dir + "/none/log" }, "no such file", false},
		{"log is a link", func(b *bed) { _ = os.Symlink("/dev/null", b.spec.LogPath) }, "open log", false},
		{"log is a FIFO", func(b *bed) { _ = unix.Mkfifo(b.spec.LogPath, 0o600) }, "open log", false},
		{"log is a directory", func(b *bed) { _ = os.Mkdir(b.spec.LogPath, 0o700) }, "open log", false},
		{"no run directory", func(b *bed) { b.spec.RunDir += "/none" }, "run directory", false},
		{"relative path", func(b *bed) { b.spec.Bundle = "bundle" }, "not absolute", false},
		{"no monitor", func(b *bed) { b.launcher.Path = "/nonexistent/conmon" }, "start monitor", false},
		{"no answer", func(b *bed) { b.launcher.Path = "/bin/true" }, "monitor died", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBed(t)
			tt.spoil(b)
			before := openFDs(t)
			_, _, err := b.launcher.Create(t.Context(), b.spec)
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), b.spec.ID) {
				t.Errorf("error %q does not say %q", err, tt.want)
			}
			if got := strings.Contains(b.calls(), "delete --force "+b.spec.ID); got != tt.deletes {
				t.Errorf("deleted: %t, want %t; calls:\n%s", got, tt.deletes, b.calls())
			}
			if b.exists("init") {
				b.waitGone(b.fakeInit())
			}
			for _, left := range []string{"run/" + conmon.ControlSocket, "run/console", "exits/exit"} {
				if b.exists(left) {
					t.Errorf("%s is left", left)
				}
			}
			if now := openFDs(t); now != before {
				t.Errorf("%d descriptors open, %d before", now, before)
			}
		})
	}
}

func TestCreateGivesUpWithItsContext(t *testing.T) {
	b := newBed(t)
	b.fake("hang")
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the caller left")
	done := make(chan error)
	go func() {
		_, _, err := b.launcher.Create(ctx, b.spec)
		done <- err
	}()
	b.eventually("a hanging create", func() bool { return b.exists("hangs") })
	half := b.fakeInit()
	cancel(why)
	if err := <-done; !errors.Is(err, why) {
		t.Fatalf("error %v, want the context's", err)
	}
	// Create has returned, so it is all gone by now.
	if half.Alive() {
		t.Error("half a container is left")
	}
	if !strings.Contains(b.calls(), "delete --force "+b.spec.ID) {
		t.Errorf("the container was not deleted; calls:\n%s", b.calls())
	}
	if b.exists("exits/exit") || b.exists("run/"+conmon.ControlSocket) {
		t.Error("a record or a socket is left")
	}
}

// daemon is a process that launches the monitor of b and can be killed.
func (b *bed) daemon() (*exec.Cmd, *bufio.Reader) {
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
	b := newBed(t)
	b.fake("hang")
	daemon, _ := b.daemon()
	b.eventually("a hanging create", func() bool { return b.exists("hangs") })
	half := b.fakeInit()
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	b.waitGone(half)
	b.eventually("deletion", func() bool { return strings.Contains(b.calls(), "delete --force "+b.spec.ID) })
	b.eventually("end of the socket", func() bool { return !b.exists("run/" + conmon.ControlSocket) })
	if b.exists("exits/exit") {
		t.Error("there is a record of a container that never was")
	}
}

func TestDaemonDiesAfterCreate(t *testing.T) {
	b := newBed(t)
	b.spec.RuntimeEnv = append(b.spec.RuntimeEnv, "FAKE_SCRIPT=echo on; exit 7")
	daemon, out := b.daemon()
	line, err := out.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "created ") {
		t.Fatalf("daemon says %q, %v", line, err)
	}
	// A SIGTERM or SIGHUP to the daemon's process group is no matter either.
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
		t.Errorf("log has %q", got)
	}
}

// A daemon that closes its pipe without having read the answer does not know of
// the container.
func TestUnreadAnswer(t *testing.T) {
	b := newBed(t)
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
		t.Error("the container has ended before the pipe was closed")
	}
	r.Close()
	if err := monitor.Wait(); err != nil {
		t.Error(err)
	}
	if init.Alive() || !strings.Contains(b.calls(), "delete --force "+b.spec.ID) {
		t.Errorf("the container was not deleted; calls:\n%s", b.calls())
	}
	if b.exists("exits/exit") || b.exists("run/"+conmon.ControlSocket) {
		t.Error("a record or a socket is left")
	}
}

// What the runtime itself says while it creates is not the container's output.
func TestRuntimeWordsAreNotLogged(t *testing.T) {
	b := newBed(t)
	b.fake("shout")
	b.spec.RuntimeEnv = append(b.spec.RuntimeEnv, "FAKE_SCRIPT=echo mine")
	b.create()
	b.start()
	b.exit()
	if got := b.log(b.spec.LogPath); len(got) != 1 || got[0].text != "mine" {
		t.Errorf("log has %q", got)
	}
}
