package oomscore

import (
	"os/exec"
	"testing"

	"github.com/containerd/errdefs"
)

// start starts a process with an oom_score_adj and returns its pid. stop ends the process.
func start(t *testing.T, adj int) (pid int, stop func()) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatalf("start sleep: %v", err)
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(stop)
	if err := Set(cmd.Process.Pid, adj); err != nil {
		t.Fatalf("set the oom_score_adj of sleep to %d: %v", adj, err)
	}
	return cmd.Process.Pid, stop
}

// TestSetInherited checks that a process that has another value than the first process keeps that
// value.
func TestSetInherited(t *testing.T) {
	first, stop := start(t, 300)
	child, _ := start(t, 300)
	other, _ := start(t, 500)
	pids := func() ([]int, error) { return []int{first, child, other}, nil }
	if err := SetInherited(first, pids, 400); err != nil {
		t.Fatalf("set the inherited oom_score_adj to 400: %v", err)
	}
	for pid, want := range map[int]int{first: 400, child: 400, other: 500} {
		if got, err := Get(pid); err != nil || got != want {
			t.Errorf("oom_score_adj of process %d: got %d, error %v, want %d", pid, got, err, want)
		}
	}
	stop()
	if err := SetInherited(first, pids, 300); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("oom_score_adj of a process that has exited: got error %v, want ErrFailedPrecondition", err)
	}
}
