package runtime

import (
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestEndGroupReapsOrphans checks that endGroup does not wait for the process that reaps orphans, which is this process
// after AdoptOrphans.
func TestEndGroupReapsOrphans(t *testing.T) {
	if err := AdoptOrphans(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", "sleep 0.1 & exit 0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if err := endGroup(cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	if err := unix.Kill(-cmd.Process.Pid, 0); err == nil {
		t.Error("the group has processes")
	}
}
