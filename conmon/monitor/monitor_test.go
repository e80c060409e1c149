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

	"github.com/criserver/criserver/conmon/wire"
	"github.com/criserver/criserver/internal/proc"
)

func TestStartTimeIsThatOfProc(t *testing.T) {
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

func TestRuntimeWords(t *testing.T) {
	t.Chdir(t.TempDir())
	long := strings.Repeat("é", maxWords)
	tests := []struct{ name, log, said, want string }{
		{"the last error", `{"level":"error","msg":"first"}` + "\n" + `{"level":"error","msg":"second "}` + "\n" + `{"level":"info","msg":"bye"}` + "\n\n", "x", "second"},
		{"no error in it", `{"level":"info","msg":"hello"}`, "said", "exit status 1: said"},
		{"not JSON", "panic: oh\n", "said", "exit status 1: said"},
		{"nothing", "", "", "exit status 1"},
	}
	for _, tt := range tests {
		if err := os.WriteFile(wire.RuntimeLog, []byte(tt.log), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := runtimeWords(tt.said, "exit status 1", make([]byte, 64<<10)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	if got := cutWords(long); len(got) > maxWords+4 || strings.ToValidUTF8(got, "") != got {
		t.Errorf("cut to %d bytes", len(got))
	}
	var words tail
	for range 100 {
		words.add([]byte(strings.Repeat("x", 1000) + "end"))
	}
	if len(words.b) != maxTail || !strings.HasSuffix(words.text(), "end") {
		t.Errorf("tail of %d bytes", len(words.b))
	}
}

// The record appears whole or not, and replaces an older one.
func TestWriteRecord(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "exit")
	for _, content := range []string{"first", "second, longer"} {
		if err := writeRecord(name, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(name); err != nil || string(got) != content {
			t.Errorf("record %q, %v", got, err)
		}
	}
	if err := writeRecord(filepath.Join(dir, "none", "exit"), nil); !errors.Is(err, unix.ENOENT) {
		t.Errorf("no directory: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeRecord(filepath.Join(dir, "taken"), nil); err == nil {
		t.Error("a directory was replaced")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// What works once a read must not make garbage: nothing collects it.
func TestRoutineWorkAllocatesNothing(t *testing.T) {
	log := new(logFile)
	if err := log.open(filepath.Join(t.TempDir(), "log"), make(buffer, outSize)); err != nil {
		t.Fatal(err)
	}
	defer log.close()
	var l lines
	data := []byte(strings.Repeat("some line\n", 100) + "rest")
	l.cut(log, new(prefix), data) // makes room for what is held back
	if n := testing.AllocsPerRun(100, func() {
		var p prefix
		p.set(stdout, testTime)
		l.cut(log, &p, data)
		log.flush()
	}); n != 0 {
		t.Errorf("%v allocations for a read", n)
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
		_ = cmd.Wait() // it does end
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

// orphan leaves an orphan to process 1 of a PID namespace, lets it end, and
// fails if it stays a zombie.
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
			t.Fatalf("did not happen: %s", what)
		}
	}
}
