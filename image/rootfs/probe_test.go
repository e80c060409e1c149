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

// TestProbeByTheOldCall tries what kernels before 6.5 have, in a directory whose
// name has the separators of overlay's options.
func TestProbeByTheOldCall(t *testing.T) {
	needRoot(t)
	dir := mkdir(t, t.TempDir(), "a:b,c")
	o := overlay{lower: []string{mkdir(t, dir, "l1"), mkdir(t, dir, "l2")}, upper: mkdir(t, dir, "upper"), work: mkdir(t, dir, "work")}
	if err := (support{}).try(o, mkdir(t, dir, "target")); err != nil {
		t.Error(err)
	}
	if err := (support{off: []string{"no_such_feature"}}).try(o, mkdir(t, dir, "target")); err == nil {
		t.Error("the kernel takes an option that does not exist")
	}
}
