package harness

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// KernelAtLeast says whether the kernel has this version or a later one.
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

// MapsTmpfs says whether the kernel maps the ids of tmpfs mounts, as Linux does
// since 6.3. Pods with user namespaces need this, because volumes are on tmpfs.
func MapsTmpfs() (bool, error) { return KernelAtLeast(6, 3) }
