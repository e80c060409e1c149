package harness

import (
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// detach unmounts all that is mounted at or below dir, the deepest first.
func detach(s Snapshot, dir string) {
	names := slices.Sorted(maps.Keys(s))
	slices.Reverse(names)
	for _, name := range names {
		if at := mountPoint(s[name]); strings.HasPrefix(name, "mount ") && strings.HasPrefix(at, dir) {
			_ = unix.Unmount(at, unix.MNT_DETACH)
		}
	}
}

// removeCgroups removes the cgroups of a snapshot, the deepest first.
func removeCgroups(s Snapshot) {
	names := slices.Sorted(maps.Keys(s))
	slices.Reverse(names)
	for _, name := range names {
		if path, ok := strings.CutPrefix(name, "cgroup "); ok {
			_ = os.Remove(path)
		}
	}
}
