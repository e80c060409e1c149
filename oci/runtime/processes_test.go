package runtime

import (
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/criserver/criserver/internal/proc"
	"golang.org/x/sys/unix"
)

// TestKillTree checks that killTree kills descendants, also if their parents have exited, but not
// the processes of the caller's session.
func TestKillTree(t *testing.T) {
	cmd := exec.Command("sh", "-c", "setsid sh -c '(sleep 1000 &); sleep 1000 & wait' & sleep 1000 & wait")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	callerSession, err := unix.Getsid(0)
	if err != nil {
		t.Fatal(err)
	}
	var processes map[int]proc.Stat
	for range 500 {
		var err error
		if processes, err = runningProcesses(); err != nil {
			t.Fatal(err)
		}
		if len(descendants(processes, cmd.Process.Pid, false, make(map[int]bool), callerSession)) >= 4 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	go func() { exited <- cmd.Wait() }()
	victims := descendants(processes, cmd.Process.Pid, false, make(map[int]bool), callerSession)
	if len(victims) < 4 {
		t.Fatalf("found only %d descendants", len(victims))
	}
	if err := killTree(cmd.Process.Pid, false); err != nil {
		t.Fatal(err)
	}
	select {
	case <-exited:
	case <-time.After(10 * time.Second):
		t.Fatal("the parent still waits for its children")
	}
	for _, v := range victims {
		if v.Alive() {
			t.Errorf("process %d is still running", v.PID)
		}
	}
}

func TestReapOrphans(t *testing.T) {
	if err := AdoptOrphans(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sh", "-c", "sleep 0.2 >/dev/null & echo $!").Output()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	orphan, err := proc.Identify(pid)
	if err != nil {
		t.Fatal(err)
	}
	var zombies map[proc.Ref]bool // may include orphans of other tests
	for range 6000 {
		if zombies = reapOrphans(zombies); zombies[orphan] {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := proc.Identify(pid); err != nil {
		t.Fatalf("the orphan was reaped when it was first seen: %v", err)
	}
	if unreaped := reapOrphans(zombies); unreaped[orphan] {
		t.Errorf("not reaped: %v", unreaped)
	}
	if _, err := proc.Identify(pid); !errors.Is(err, proc.ErrGone) {
		t.Errorf("the orphan still exists: %v", err)
	}
}
