package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestWatchReportsExitAndStatus(t *testing.T) {
	w, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()

	cmd := exec.Command("sh", "-c", "read x; exit 9")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ref, err := Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if !ref.Alive() {
		t.Fatal("Alive is false for a running process")
	}
	reaped, exited := make(chan struct{}), make(chan int, 1)
	if err := w.Watch(ref, func(f *os.File) {
		<-reaped
		st, err := ExitStatus(f)
		if err != nil {
			exited <- -1
			return
		}
		exited <- st.ExitStatus()
	}); err != nil {
		t.Fatal(err)
	}
	in.Close()
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 9 {
		t.Fatalf("wait: %v", err)
	}
	close(reaped)
	select {
	case code := <-exited:
		if code == -1 {
			t.Log("this kernel does not return exit codes through pidfds")
		} else if code != 9 {
			t.Fatalf("exit code %d, want 9", code)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Watch did not report the exit")
	}
	if ref.Alive() {
		t.Fatal("Alive is true for a reaped process")
	}
	if err := ref.Signal(0); !errors.Is(err, ErrGone) {
		t.Fatalf("signal: %v, want ErrGone", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestRefOfReusedPID(t *testing.T) {
	self, err := Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	self.Start++
	if self.Alive() {
		t.Error("Alive is true for another start time")
	}
	if _, err := self.Open(); !errors.Is(err, ErrGone) {
		t.Errorf("open: %v, want ErrGone", err)
	}
}

func TestFindByCommandLine(t *testing.T) {
	cmd := exec.Command("sleep", "1000.0123")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if ref, ok := Find("sleep", "1000.0123"); !ok || ref.PID != cmd.Process.Pid {
		t.Errorf("found %+v, %v; want pid %d", ref, ok, cmd.Process.Pid)
	}
	for _, args := range [][]string{{"sleep"}, {"sleep", "1000.012"}, {"sleep", "1000.0123", ""}} {
		if ref, ok := Find(args...); ok {
			t.Errorf("%q: found %+v", args, ref)
		}
	}
}

func TestParseStat(t *testing.T) {
	const rest = " S 10 20 30 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 1 2\n"
	want := Stat{Ref: Ref{PID: 42, Start: 4711}, State: 'S', Parent: 10, Session: 30}
	for _, comm := range []string{"sh", "a b", "x) Z 1 1 1", "(", ""} {
		if got, err := parseStat(42, []byte("42 ("+comm+")"+rest)); err != nil || got != want {
			t.Errorf("command %q: %+v, %v, want %+v", comm, got, err, want)
		}
	}
	for _, content := range []string{"", "42 (sh) S 10 20", "42 sh" + rest, "42 (sh) S x 20 30 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 4711"} {
		if s, err := parseStat(42, []byte(content)); err == nil {
			t.Errorf("%q: %+v, want an error", content, s)
		}
	}
}

func TestStatusField(t *testing.T) {
	if got, ok := StatusField(os.Getpid(), "Tgid"); !ok || got != strconv.Itoa(os.Getpid()) {
		t.Errorf("Tgid is %q, %t", got, ok)
	}
	if got, ok := StatusField(os.Getpid(), "Tg"); ok {
		t.Errorf("the field Tg is %q, want none", got)
	}
}

func TestChildren(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if got := Children(); !slices.Contains(got, cmd.Process.Pid) {
		t.Errorf("children %v do not include %d", got, cmd.Process.Pid)
	}
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(all, func(s Stat) bool { return s.PID == cmd.Process.Pid && s.Parent == os.Getpid() }) {
		t.Errorf("All does not return the child %d", cmd.Process.Pid)
	}
}

// TestForked checks a process before and after execve(2).
func TestForked(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	// The subshell is a fork of the shell until the fifo has a line.
	cmd := exec.Command("/bin/sh", "-c", "(read line; exec sleep 1000) <"+fifo+" & echo $!; exec sleep 1000")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Kill(pid, unix.SIGKILL) }()
	if s, err := ReadStat(pid); err != nil || !s.Forked {
		t.Errorf("before execve: %+v, %v", s, err)
	}
	if err := os.WriteFile(fifo, []byte("x\n"), 0); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		s, err := ReadStat(pid)
		if err == nil && !s.Forked {
			break
		}
		if err != nil || time.Now().After(end) {
			t.Fatalf("after execve: %+v, %v", s, err)
		}
	}
}
