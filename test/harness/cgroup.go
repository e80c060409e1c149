package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path"

	"golang.org/x/sys/unix"
)

// driverVariable names the cgroup driver of the daemons under test. Without it they choose their driver themselves.
const driverVariable = "CRISERVER_TEST_CGROUP_DRIVER"

// Unified says whether the machine has its cgroup controllers on the unified hierarchy (cgroup v2).
func Unified() bool {
	var fs unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC
}

// SystemdDriver says whether the daemons under test make their cgroups through systemd.
func SystemdDriver() bool {
	switch os.Getenv(driverVariable) {
	case "systemd":
		return true
	case "cgroupfs":
		return false
	}
	_, err := os.Stat("/run/systemd/system")
	return err == nil && Unified()
}

// cgroupName is how the configuration names a parent cgroup: by its path, or by the name of a slice.
func cgroupName(parent string) string {
	if SystemdDriver() {
		return path.Base(parent) + ".slice"
	}
	return parent
}

// stopSlice stops the slice that systemd keeps for the parent cgroup of a run, and with it the slices below.
func stopSlice(parent string) error {
	if !SystemdDriver() {
		return nil
	}
	if out, err := exec.Command("systemctl", "stop", cgroupName(parent)).CombinedOutput(); err != nil {
		return fmt.Errorf("stop slice %s: %w: %s", cgroupName(parent), err, out)
	}
	return nil
}
