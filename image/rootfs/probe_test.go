package rootfs

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInMountNamespace mounts like the probe. The mount namespace of the process must never have
// the mount, so that a killed process leaves no mount behind.
func TestInMountNamespace(t *testing.T) {
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
	err := inMountNamespace(func() error {
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
		t.Error("the mount still exists")
	}
}

// TestProbeWithMount2 probes with mount(2), as on kernels before 6.5, in a directory whose name has
// the separators of overlay's options.
func TestProbeWithMount2(t *testing.T) {
	needRoot(t)
	dir := mkdir(t, t.TempDir(), "a:b,c")
	o := overlay{lower: []string{mkdir(t, dir, "l1"), mkdir(t, dir, "l2")}, upper: mkdir(t, dir, "upper"), work: mkdir(t, dir, "work")}
	if err := (overlaySupport{}).try(o, mkdir(t, dir, "target")); err != nil {
		t.Error(err)
	}
	if err := (overlaySupport{off: []string{"no_such_feature"}}).try(o, mkdir(t, dir, "target")); err == nil {
		t.Error("mount with an unknown option: got no error")
	}
}
