package monitor

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/monitor/crilog"
	"github.com/criserver/criserver/conmon/monitor/sys"
	"github.com/criserver/criserver/conmon/wire"
	"github.com/criserver/criserver/internal/proc"
)

func TestStartTimeMatchesProcIdentify(t *testing.T) {
	for _, pid := range []int{1, os.Getpid()} {
		want, err := proc.Identify(pid)
		if err != nil {
			t.Fatal(err)
		}
		got, err := startTime(pid, make([]byte, 4096))
		if err != nil || got != want.Start {
			t.Errorf("pid %d: %d, %v; want %d", pid, got, err, want.Start)
		}
	}
}

// TestReplaceFile checks that replaceFile replaces a file atomically.
func TestReplaceFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "exit")
	for _, content := range []string{"first", "second, longer"} {
		if err := replaceFile(name, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(name); err != nil || string(got) != content {
			t.Errorf("content %q, error %v", got, err)
		}
	}
	if err := replaceFile(filepath.Join(dir, "none", "exit"), nil); !errors.Is(err, unix.ENOENT) {
		t.Errorf("missing directory: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(filepath.Join(dir, "taken"), nil); err == nil {
		t.Error("a directory was replaced")
	}
	if files, _ := filepath.Glob(filepath.Join(dir, ".*")); len(files) > 0 {
		t.Errorf("temporary files still exist: %v", files)
	}
}

func TestPause(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: a PID namespace")
	}
	binary := filepath.Join(t.TempDir(), "conmon")
	build := exec.Command("go", "build", "-o", binary, "../../cmd/conmon")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, args := range [][]string{{"pause"}, {"/usr/bin/pause"}, {"conmon", "pause"}} {
		cmd := exec.Command(binary)
		cmd.Args = args
		cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		self, err := proc.Identify(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		orphan(t, self.PID)
		if err := self.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // the process must exit
	}
	if out, err := exec.Command(binary).CombinedOutput(); err == nil || !strings.HasPrefix(string(out), "usage: ") {
		t.Errorf("without arguments: %q, %v", out, err)
	}
	for _, args := range [][]string{{"probe"}, {"--version"}} {
		if out, err := exec.Command(binary, args...).CombinedOutput(); err != nil || (args[0] == "probe") != (len(out) == 0) {
			t.Errorf("%v: %q, %v", args, out, err)
		}
	}
}

// orphan makes an orphan in the PID namespace of the process init. It fails the test if the
// orphan stays a zombie after its exit.
func orphan(t *testing.T, init int) {
	t.Helper()
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		t.Fatal("needs nsenter")
	}
	pid := itoa(init)
	waitFor(t, "pause", func() bool {
		comm, _ := os.ReadFile("/proc/" + pid + "/comm")
		return string(comm) == "pause\n"
	})
	if out, err := exec.Command(nsenter, "-t", pid, "-p", "sh", "-c", "(sleep 0.2 &) ; exit 0").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	children := func() string {
		b, err := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	waitFor(t, "end of the orphan", func() bool { return children() == "" })
}

func itoa(n int) string { return strconv.Itoa(n) }

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timeout: %s", what)
		}
	}
}

// TestPollTimeoutOfPartialLines checks that an unfinished line limits the wait for events, and
// that a monitor without one waits without limit.
func TestPollTimeoutOfPartialLines(t *testing.T) {
	m := newMonitor(wire.Spec{})
	if err := m.log.Open("", 0, make(sys.Buffer, crilog.BufferSize)); err != nil {
		t.Fatal(err)
	}
	for i := range m.streams {
		m.streams[i].m = m
	}
	if got := m.pollTimeout(); got != -1 {
		t.Errorf("without output: got %d ms, want no limit", got)
	}
	var p crilog.Prefix
	now := time.Now()
	m.streams[1].lines.Split(&m.log, &p, now, []byte("line\nprompt"))
	if got := m.pollTimeout(); got < 0 || got > int(crilog.LineDelay/time.Millisecond) {
		t.Errorf("with an unfinished line: got %d ms, want at most %v", got, crilog.LineDelay)
	}
	m.streams[1].lines = crilog.Lines{}
	m.streams[1].lines.Split(&m.log, &p, now.Add(-crilog.LineDelay), []byte("prompt"))
	if got := m.pollTimeout(); got != 0 {
		t.Errorf("with an overdue line: got %d ms, want 0", got)
	}
	m.runTimers()
	if got := m.pollTimeout(); got != -1 || m.streams[1].lines.Pending() > 0 {
		t.Errorf("after the line was written: got %d ms, want no limit", got)
	}
}
