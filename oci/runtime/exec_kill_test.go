package runtime

import (
	"context"
	"errors"
	"os/exec"
	"testing"
	"time"
)

// TestTimeoutWaitsForKill checks that waitForCommand returns when kill has ended, and not already when kill has ended
// the command: in a guest, the descendants of the command are killed after the command.
func TestTimeoutWaitsForKill(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	ended := false
	_, err := waitForCommand(ctx, cmd.Process.Pid, func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		time.Sleep(200 * time.Millisecond)
		ended = true
	})
	if !errors.Is(err, context.DeadlineExceeded) || !ended {
		t.Errorf("got %v, kill has ended: %t, want DeadlineExceeded after the end of kill", err, ended)
	}
}
