package oci

import (
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/userns"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// CheckIDMap says whether the kernel can map the ids of what is at source, which
// has no symbolic links, by a user namespace, and of all that is mounted below;
// submounts says whether anything is. ErrFailedPrecondition when it cannot.
func CheckIDMap(source, userNS string) (submounts bool, err error) {
	ns, err := os.Open(userNS)
	if err != nil {
		return false, fmt.Errorf("user namespace: %w", err)
	}
	defer ns.Close()
	below, err := hostMounts(mountinfo.PrefixFilter(source))
	if err != nil {
		return false, fmt.Errorf("read the mounts: %w", err)
	}
	paths := []string{source}
	for _, m := range below {
		if m.Mountpoint != source {
			paths = append(paths, m.Mountpoint)
		}
	}
	for _, path := range paths {
		tree, err := userns.MapMount(path, ns, false)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
			return false, fmt.Errorf("the ids of %s cannot be mapped: %s on this kernel: %w", path, fsType(path), errdefs.ErrFailedPrecondition)
		}
		if err != nil {
			return false, fmt.Errorf("map the ids of %s: %w", path, err)
		}
		if err := tree.Close(); err != nil {
			return false, err
		}
	}
	return len(paths) > 1, nil
}

// fsType names the file system at path, for people.
func fsType(path string) string {
	mounts, err := hostMounts(mountinfo.ParentsFilter(path))
	at := (*mountinfo.Info)(nil)
	for _, m := range mounts {
		if at == nil || len(m.Mountpoint) >= len(at.Mountpoint) {
			at = m
		}
	}
	if err != nil || at == nil {
		return "its file system does not support it"
	}
	return "its file system, " + at.FSType + ", does not support it"
}
