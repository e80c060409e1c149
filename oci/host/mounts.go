package host

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/mounttable"
	"github.com/criserver/criserver/internal/userns"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// mountRestrictions pairs the flags of statfs(2) with the options of mount(8).
var mountRestrictions = []struct {
	flag   uint64
	option string
}{
	{unix.ST_RDONLY, "ro"}, {unix.ST_NOSUID, "nosuid"}, {unix.ST_NODEV, "nodev"}, {unix.ST_NOEXEC, "noexec"},
}

// MountRestrictions returns the options by which the host restricts the mount of a path. A bind
// mount inherits them until it is remounted with other options. OCI runtimes remount for any
// option, and drop restrictions that the options do not repeat.
func MountRestrictions(path string) ([]string, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(path, &st)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("statfs %s: %w", path, err)
		}
		break
	}
	var options []string
	for _, r := range mountRestrictions {
		if uint64(st.Flags)&r.flag != 0 { // the type of Flags depends on the architecture
			options = append(options, r.option)
		}
	}
	return options, nil
}

// CheckIDMap checks whether the kernel can map ids by a user namespace for source, which must
// have no symbolic links, and for all mounts below. submounts reports whether there are mounts
// below. CheckIDMap returns ErrFailedPrecondition if a file system does not support it.
func CheckIDMap(source, userNS string) (submounts bool, err error) {
	ns, err := os.Open(userNS)
	if err != nil {
		return false, fmt.Errorf("user namespace: %w", err)
	}
	defer ns.Close()
	below, err := mounttable.Read(mountinfo.PrefixFilter(source))
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

// mountOf returns the mount that a path without symbolic links is on, or nil if there is none.
func mountOf(path string) (*mountinfo.Info, error) {
	mounts, err := mounttable.Read(mountinfo.ParentsFilter(path))
	if err != nil {
		return nil, fmt.Errorf("read the mounts: %w", err)
	}
	var mount *mountinfo.Info
	for _, m := range mounts {
		// If several mounts have the same mount point, the last one is on top.
		if mount == nil || len(m.Mountpoint) >= len(mount.Mountpoint) {
			mount = m
		}
	}
	return mount, nil
}

// fsType describes the file system at path for an error message.
func fsType(path string) string {
	mount, err := mountOf(path)
	if err != nil || mount == nil {
		return "its file system does not support it"
	}
	return "its file system, " + mount.FSType + ", does not support it"
}

// CheckPropagation checks whether mounts can propagate from or to a directory of the host. The
// mount of the directory must be shared; for propagation to the container, slave is enough.
// source must have no symbolic links.
func CheckPropagation(source string, p cri.MountPropagation) error {
	if p == cri.MountPropagation_PROPAGATION_PRIVATE {
		return nil
	}
	mount, err := mountOf(source)
	if err != nil {
		return err
	}
	if mount == nil {
		return fmt.Errorf("%s is on no mount: %w", source, errdefs.ErrFailedPrecondition)
	}
	shared := strings.Contains(mount.Optional, "shared:")
	slave := strings.Contains(mount.Optional, "master:")
	if shared || (slave && p == cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER) {
		return nil
	}
	want := "shared"
	if p == cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER {
		want = "shared or slave"
	}
	return fmt.Errorf("%s is on the mount %s, which is not a %s mount: %w", source, mount.Mountpoint, want, errdefs.ErrFailedPrecondition)
}
