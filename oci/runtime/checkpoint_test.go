package runtime

import (
	"os"
	"os/exec"
	"path/filepath"
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

func TestCRIUError(t *testing.T) {
	file := filepath.Join(t.TempDir(), DumpLog)
	if got := CRIUError(file); got != "" {
		t.Errorf("without a log: %q", got)
	}
	const (
		full     = "(00.1) Error (criu/page-xfer.c:263): page-xfer: No space left on device\n"
		harmless = "(00.1) Error (criu/rlimit.c:39): rlimit: Can't setup RLIMIT_NOFILE for self\n"
	)
	for log, want := range map[string]string{
		"":                                     "",
		"(00.1) Dumping\n":                     "",
		harmless:                               "",
		full[:len(full)-6]:                     "", // the disk was full
		"(00.1) Dumping\n" + harmless + full:   "criu: Error (criu/page-xfer.c:263): page-xfer: No space left on device",
		full + "(00.2) Error (criu/x.c:1): Du": "criu: Error (criu/page-xfer.c:263): page-xfer: No space left on device",
	} {
		if err := os.WriteFile(file, []byte(log), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := CRIUError(file); got != want {
			t.Errorf("%q: got %q, want %q", log, got, want)
		}
	}
}
