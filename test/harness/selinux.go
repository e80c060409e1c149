package harness

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// SELinux labels that an installation by docs/security.md gives to the daemon's directories.
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
// daemon. New files in the directory get the same label. It does nothing on a host without SELinux.
func LabelState(dir string) error {
	if !SELinux() {
		return nil
	}
	if err := unix.Lsetxattr(dir, "security.selinux", []byte(stateLabel), 0); err != nil {
		return fmt.Errorf("label %s: %w", dir, err)
	}
	return nil
}

// runOptions returns the mount options of a tmpfs that stands for /run/criserver.
func runOptions() string {
	if SELinux() {
		return "mode=755,rootcontext=" + runLabel
	}
	return "mode=755"
}
