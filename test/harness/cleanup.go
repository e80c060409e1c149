package harness

import (
	"errors"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// CleanUp kills the remaining processes of the run and removes its mounts, its
// cgroups and its directory.
func CleanUp(dir, cgroupParent string) error {
	for _, pid := range descendants(os.Getpid()) {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	for {
		if _, err := unix.Wait4(-1, nil, 0, nil); errors.Is(err, unix.ECHILD) {
			break
		}
	}
	found := Snapshot{}
	if err := addMounts(found); err != nil {
		return err
	}
	unmountBelow(found, dir)
	if err := addCgroups(found, cgroupParent); err != nil {
		return err
	}
	removeCgroups(found)
	return errors.Join(stopSlice(cgroupParent), os.RemoveAll(dir))
}

// unmountBelow unmounts the mounts of a snapshot at or below dir, the deepest first.
func unmountBelow(s Snapshot, dir string) {
	names := slices.Sorted(maps.Keys(s))
	slices.Reverse(names)
	for _, name := range names {
		if point := mountPoint(s[name]); strings.HasPrefix(name, "mount ") && strings.HasPrefix(point, dir) {
			_ = unix.Unmount(point, unix.MNT_DETACH)
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
