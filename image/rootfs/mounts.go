package rootfs

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// mountsOf returns the mount points of a container's root file system, the last
// mount first, for a container whose record does not have them. It goes by the
// writable layer in the options of the mount, and by the container's id in the
// path of the mount point, because mount(2) gets the writable layer as the
// number of a descriptor.
func mountsOf(dir, containerID string) ([]string, error) {
	upper := "upperdir=" + filepath.Join(dir, upperDir)
	found, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		ours := slices.Contains(strings.Split(i.VFSOptions, ","), upper) ||
			slices.Contains(strings.Split(i.Mountpoint, "/"), containerID)
		return i.FSType != "overlay" || !strings.Contains(i.VFSOptions, "upperdir=") || !ours, false
	})
	if err != nil {
		return nil, fmt.Errorf("find the mounts of container %q: %w", containerID, err)
	}
	targets := make([]string, 0, len(found))
	for _, i := range found {
		targets = append(targets, i.Mountpoint)
	}
	slices.Reverse(targets)
	return targets, nil
}
