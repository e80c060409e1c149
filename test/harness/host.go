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

// driverVariable is the environment variable with the cgroup driver of the daemons under test. Without it the daemons
// choose their driver.
const driverVariable = "CRISERVER_TEST_CGROUP_DRIVER"

// runtimeVariable is the environment variable with the default runtime of the daemons under test. Without it they use
// runc.
const runtimeVariable = "CRISERVER_TEST_RUNTIME"

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

// cgroupName returns the value of cgroup_parent for a driver: a path, or the name of a slice.
func cgroupName(driver, parent string) string {
	if driver == Systemd && !strings.HasSuffix(parent, ".slice") {
		return path.Base(parent) + ".slice"
	}
	return parent
}

// stopSlice stops the slice of the parent cgroup of a run, and the slices below it.
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

// KernelAtLeast reports whether the kernel has this version or a later one.
func KernelAtLeast(major, minor int) (bool, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return false, fmt.Errorf("uname: %w", err)
	}
	release := unix.ByteSliceToString(name.Release[:])
	var x, y int
	if _, err := fmt.Sscanf(release, "%d.%d", &x, &y); err != nil {
		return false, fmt.Errorf("kernel release %q: %w", release, err)
	}
	return x > major || x == major && y >= minor, nil
}

// MapsTmpfs reports whether the kernel supports id-mapped tmpfs mounts, as Linux
// does since 6.3. Pods with user namespaces need them, because the kubelet has
// volumes on tmpfs.
func MapsTmpfs() (bool, error) { return KernelAtLeast(6, 3) }

// SELinux labels of the daemon's directories; see docs/security.md.
const (
	stateLabel = "system_u:object_r:container_var_lib_t:s0"
	runLabel   = "system_u:object_r:container_runtime_t:s0"
)

// SELinux reports whether SELinux is enabled on this host.
func SELinux() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
}

// LabelState gives a new directory the SELinux label of the daemon's state, as restorecon does for an installed
// daemon. New files in the directory inherit the label. On a host without SELinux, LabelState does nothing.
func LabelState(dir string) error {
	if !SELinux() {
		return nil
	}
	if err := unix.Lsetxattr(dir, "security.selinux", []byte(stateLabel), 0); err != nil {
		return fmt.Errorf("label %s: %w", dir, err)
	}
	return nil
}

// runOptions returns the mount options of a tmpfs in place of /run/criserver.
func runOptions() string {
	if SELinux() {
		return "mode=755,rootcontext=" + runLabel
	}
	return "mode=755"
}
