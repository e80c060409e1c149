package proc

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestWatchTellsEndAndStatus(t *testing.T) {
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
		t.Fatal("a running process is not alive")
	}
	reaped, ended := make(chan struct{}), make(chan int, 1)
	if err := w.Watch(ref, func(f *os.File) {
		<-reaped
		st, err := ExitStatus(f)
		if err != nil {
			ended <- -1
			return
		}
		ended <- st.ExitStatus()
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
	case code := <-ended:
		if code == -1 {
			t.Log("this kernel does not tell exit codes through pidfds")
		} else if code != 9 {
			t.Fatalf("exit code %d, want 9", code)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the end was not told")
	}
	if ref.Alive() {
		t.Fatal("a reaped process is alive")
	}
	if err := ref.Signal(0); !errors.Is(err, ErrGone) {
		t.Fatalf("signal: %v, want ErrGone", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestReusedPidIsNotBelieved(t *testing.T) {
	self, err := Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	self.Start++
	if self.Alive() {
		t.Error("alive with another start time")
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
