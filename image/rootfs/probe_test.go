package rootfs

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestProbeMountsAreNotOfTheHost mounts as the probe does. The mount namespace of
// the process never has the mount, so a kill cannot leave the mount behind.
func TestProbeMountsAreNotOfTheHost(t *testing.T) {
	needRoot(t)
	target := mkdir(t, t.TempDir(), "target")
	mounted := func(table string) bool {
		t.Helper()
		b, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(b), " "+target+" ")
	}
	err := inOwnMounts(func() error {
		if err := unix.Mount("probe", target, "tmpfs", 0, ""); err != nil {
			return err
		}
		if !mounted("/proc/thread-self/mountinfo") {
			t.Error("the mount is not in the namespace of the thread")
		}
		if mounted("/proc/self/mountinfo") {
			t.Error("the mount is in the namespace of the process")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if mounted("/proc/self/mountinfo") {
		t.Error("the mount is left")
	}
}
