package proc

import (
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDefunct(t *testing.T) {
	before, err := Defunct()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Wait until the child has exited, without reaping it.
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if n, err := Defunct(); err != nil || n != before+1 {
		t.Errorf("with a child that has exited: got %d, %v, want %d", n, err, before+1)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if n, err := Defunct(); err != nil || n != before {
		t.Errorf("after the child was reaped: got %d, %v, want %d", n, err, before)
	}
}

func TestStatState(t *testing.T) {
	for stat, want := range map[string]byte{"7 (a) b) Z 1 2": 'Z', "7 (sh) S 1": 'S', "": 0, "7 (sh)": 0, "7 (sh) ": 0} {
		if got := statState([]byte(stat)); got != want {
			t.Errorf("%q: got %q, want %q", stat, got, want)
		}
	}
}
