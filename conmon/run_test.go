package conmon_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/internal/proc"
)

func TestExit(t *testing.T) {
	tests := []struct {
		name   string
		script string
		code   int32
		signal int
	}{
		{"success", "true", 0, 0},
		{"code", "exit 42", 42, 0},
		{"highest code", "exit 255", 255, 0},
		{"signal", "kill -9 $$", 137, 9},
		{"other signal", "kill -15 $$", 143, 15},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newTestbed(t)
			b.spec.RuntimeEnv = append(b.spec.RuntimeEnv, "FAKE_SCRIPT="+tt.script)
			before := time.Now()
			b.create()
			b.start()
			e := b.exit()
			if e.ExitCode != tt.code || e.Signal != tt.signal || e.Unknown || e.OOMKilled || e.LogLost != 0 {
				t.Errorf("exit record %+v, want code %d, signal %d", e, tt.code, tt.signal)
			}
			if finishedAt := time.Unix(0, e.FinishedAt); finishedAt.Before(before) || finishedAt.After(time.Now()) {
				t.Errorf("FinishedAt: got %v, want a time between %v and now", finishedAt, before)
			}
			b.waitExited(b.monitor)
			if b.exists("run/" + conmon.ControlSocket) {
				t.Error("the control socket still exists")
			}
			if dir, err := os.ReadDir(b.dir + "/exits"); err != nil || len(dir) != 1 {
				t.Errorf("files in the exit directory: %v, %v", dir, err)
			}
		})
	}
}

func TestRunc(t *testing.T) {
	b := newRuncTestbed(t, nil, sh("grep -E '^Sig(Ign|Blk)|^Sid' /proc/self/status; echo out; echo err >&2; echo fds $(ls /proc/self/fd | wc -l); printf end; exit 3")...)
	b.create()
	got, err := proc.Identify(b.started.Init.PID)
	if err != nil || got != b.started.Init {
		t.Errorf("the init process is %+v, want %+v, %v", got, b.started.Init, err)
	}
	if _, err := conmon.ReadExit(b.spec.ExitFile); err == nil {
		t.Error("there is an exit record before the start")
	}
	b.start()
	if e := b.exit(); e.ExitCode != 3 || e.OOMKilled {
		t.Errorf("exit record %+v", e)
	}
	out := text(b.log(b.spec.LogPath), "stdout")
	for _, want := range []string{"SigIgn:\t0000000000000000\n", "SigBlk:\t0000000000000000\n", "out\n", "fds 4\n"} { // 0, 1, 2 and the descriptor of ls
		if !strings.Contains(out, want) {
			t.Errorf("output does not contain %q:\n%s", want, out)
		}
	}
	if !strings.HasSuffix(out, "end") {
		t.Errorf("the unfinished line is not the last line:\n%s", out)
	}
	if got := text(b.log(b.spec.LogPath), "stderr"); got != "err\n" {
		t.Errorf("stderr is %q", got)
	}
	info, err := os.Stat(b.spec.LogPath)
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("log mode %v, %v", info.Mode(), err)
	}
}

// TestMonitorProcess checks that the monitor closes inherited descriptors, survives signals, and
// its name is conmon.
func TestMonitorProcess(t *testing.T) {
	b := newRuncTestbed(t, nil, sh("sleep 1000")...)
	leak, err := os.Open("/dev/zero") // os.Open sets close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	if _, err := unix.FcntlInt(leak.Fd(), unix.F_SETFD, 0); err != nil {
		t.Fatal(err)
	}
	b.create()
	b.start()
	dir := fmt.Sprintf("/proc/%d/", b.monitor.PID)
	comm, _ := os.ReadFile(dir + "comm")
	if string(comm) != "conmon\n" {
		t.Errorf("comm is %q", comm)
	}
	if sid, err := unix.Getsid(b.monitor.PID); err != nil || sid != b.monitor.PID {
		t.Errorf("session %d, %v", sid, err)
	}
	b.eventually("few descriptors", func() bool {
		fds, err := os.ReadDir(dir + "fd")
		if err != nil {
			t.Fatal(err)
		}
		var links []string
		for _, fd := range fds {
			link, _ := os.Readlink(dir + "fd/" + fd.Name())
			links = append(links, fd.Name()+" "+link)
			if strings.Contains(link, "/dev/zero") {
				t.Fatal("an inherited descriptor is open")
			}
		}
		t.Log(links)
		return len(links) <= 3+6 // stdio; epoll, log, stdout, stderr, control socket, pidfd
	})
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGPIPE} {
		if err := b.monitor.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	if err := conmon.ReopenLog(t.Context(), b.spec.RunDir); err != nil {
		t.Errorf("after signals: %v", err)
	}
	if err := b.started.Init.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := b.exit(); e.ExitCode != 137 || e.Signal != 9 || e.OOMKilled {
		t.Errorf("exit record %+v", e)
	}
}

func TestKilledBeforeStart(t *testing.T) {
	b := newRuncTestbed(t, nil, sh("true")...)
	b.create()
	if err := b.started.Init.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if e := b.exit(); e.ExitCode != 137 || e.Signal != 9 {
		t.Errorf("exit record %+v", e)
	}
}

func TestRuncRefuses(t *testing.T) {
	b := newRuncTestbed(t, nil, "/bin/nonesuch")
	_, _, err := b.launcher.Create(t.Context(), b.spec)
	if err == nil || !strings.Contains(err.Error(), "nonesuch") {
		t.Fatalf("error %v does not name the program", err)
	}
	t.Log(err)
}

func TestOOMKill(t *testing.T) {
	b := newRuncTestbed(t, func(config map[string]any) {
		config["linux"].(object)["resources"] = object{"memory": object{"limit": 16 << 20, "swap": 16 << 20}}
	}, sh("a=x; while true; do a=$a$a; done")...)
	b.create()
	b.start()
	if e := b.exit(); !e.OOMKilled {
		t.Errorf("exit record %+v, want an OOM kill", e)
	}
}

// TestOOMKillOfAChild checks a container in which the OOM killer has killed a child of the first
// process. The container is OOMKilled only if its first process exits soon afterwards with the
// status of the child.
func TestOOMKillOfAChild(t *testing.T) {
	const eat = "(a=x; while true; do a=$a$a; done); code=$?; echo survived; "
	for name, tc := range map[string]struct {
		script string
		signal unix.Signal
		code   int32
		oom    bool
	}{
		"exit with another status":   {eat + "exit 3", 0, 3, false},
		"exit with the child's":      {eat + "exit $code", 0, 137, true},
		"ended by its stop signal":   {"trap 'exit 143' TERM; " + eat + "while true; do sleep 0.05; done", unix.SIGTERM, 143, false},
		"success after a lost child": {eat + "exit 0", 0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newRuncTestbed(t, func(config map[string]any) {
				config["linux"].(object)["resources"] = object{"memory": object{"limit": 16 << 20, "swap": 16 << 20}}
			}, sh(tc.script)...)
			b.create()
			b.start()
			b.eventually("the death of the child", func() bool { return text(b.log(b.spec.LogPath), "stdout") == "survived\n" })
			if tc.signal != 0 {
				if err := b.started.Init.Signal(tc.signal); err != nil {
					t.Fatal(err)
				}
			}
			if e := b.exit(); e.ExitCode != tc.code || e.OOMKilled != tc.oom {
				t.Errorf("exit record %+v, want exit code %d and OOMKilled %t", e, tc.code, tc.oom)
			}
		})
	}
}

// TestOutputAfterExitOfFirstProcess checks that a process that outlives the first one and holds the
// streams does not delay the exit record.
func TestOutputAfterExitOfFirstProcess(t *testing.T) {
	b := newTestbed(t)
	b.spec.RuntimeEnv = append(b.spec.RuntimeEnv,
		"FAKE_SCRIPT=(while ! [ -e "+b.dir+"/go ]; do sleep 0.01; done; echo late; sleep 1000 & echo $! >"+b.dir+"/sleep) & printf early; exit 5")
	b.create()
	b.start()
	if e := b.exit(); e.ExitCode != 5 {
		t.Errorf("exit record %+v", e)
	}
	if got := text(b.log(b.spec.LogPath), "stdout"); got != "early" {
		t.Errorf("log contains %q when the exit record appears", got)
	}
	if !b.monitor.Alive() {
		t.Error("the monitor exited while a process still writes")
	}
	touch(b.dir + "/go")
	b.eventually("late output", func() bool { return strings.HasSuffix(text(b.log(b.spec.LogPath), "stdout"), "late\n") })
	b.waitExited(b.monitor) // although the pipe is still open
	if raw, err := os.ReadFile(b.dir + "/sleep"); err == nil {
		var pid int
		_, _ = fmt.Sscan(string(raw), &pid)
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

// TestOrphansAreReaped checks that orphans of a container in the host's PID namespace are reaped.
func TestOrphansAreReaped(t *testing.T) {
	b := newTestbed(t)
	b.spec.RuntimeEnv = append(b.spec.RuntimeEnv, "FAKE_SCRIPT=for i in 1 2 3 4 5; do (sleep 0.1 & echo $!); done; exec sleep 1000")
	b.create()
	b.start()
	var orphans []proc.Ref
	b.eventually("orphans", func() bool {
		orphans = nil
		for _, e := range b.log(b.spec.LogPath) {
			var pid int
			if _, err := fmt.Sscan(e.text, &pid); err != nil {
				t.Fatalf("no pid: %q", e.text)
			}
			orphans = append(orphans, proc.Ref{PID: pid})
		}
		return len(orphans) == 5
	})
	for _, o := range orphans {
		b.eventually("reaping", func() bool {
			raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", o.PID))
			return err != nil || string(raw) != "sleep\n"
		})
	}
}
