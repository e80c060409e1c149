package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// The cgroup drivers of the daemon.
const (
	Cgroupfs = "cgroupfs"
	Systemd  = "systemd"
)

// driverVariable names the cgroup driver of the daemons under test. Without it the daemons choose their driver
// themselves.
const driverVariable = "CRISERVER_TEST_CGROUP_DRIVER"

// Unified reports whether the host has its cgroup controllers on the unified hierarchy (cgroup v2).
func Unified() bool {
	var fs unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC
}

// CgroupDriver returns the cgroup driver of the daemons under test: systemd if systemd runs the host and cgroup
// v2 is mounted, else cgroupfs. CRISERVER_TEST_CGROUP_DRIVER in the environment overrides the choice.
func CgroupDriver() string {
	if driver := os.Getenv(driverVariable); driver != "" {
		return driver
	}
	if info, err := os.Lstat("/run/systemd/system"); err == nil && info.IsDir() && Unified() {
		return Systemd
	}
	return Cgroupfs
}

// cgroupName returns the parent cgroup as the daemon's configuration names it: by its path, or by the name of a slice.
func cgroupName(driver, parent string) string {
	if driver == Systemd && !strings.HasSuffix(parent, ".slice") {
		return path.Base(parent) + ".slice"
	}
	return parent
}

// stopSlice stops the slice that systemd keeps for the parent cgroup of a run, and with it the slices below.
func stopSlice(parent string) error {
	if CgroupDriver() != Systemd {
		return nil
	}
	name := cgroupName(Systemd, parent)
	if out, err := exec.Command("systemctl", "stop", name).CombinedOutput(); err != nil {
		return fmt.Errorf("stop slice %s: %w: %s", name, err, out)
	}
	return nil
}
