package image

import (
	"context"
	"fmt"

	"github.com/criserver/criserver/image/rootfs"
)

// MountOptions are the options of a root file system or a volume.
type MountOptions = rootfs.Options

// MountRootFS creates a writable layer for the container and mounts its root file system at target,
// an existing directory. It first removes the leftovers of an earlier attempt for the same
// container. The image is in use until UnmountRootFS. The errors are ErrNotFound,
// ErrInvalidArgument and ErrFailedPrecondition.
func (m *Manager) MountRootFS(ctx context.Context, id ID, containerID, target string) (RootFS, error) {
	return m.MountRootFSWith(ctx, id, containerID, target, MountOptions{})
}

// MountRootFSWith is MountRootFS with options.
func (m *Manager) MountRootFSWith(ctx context.Context, id ID, containerID, target string, opts MountOptions) (RootFS, error) {
	img, release, err := m.use(id)
	if err != nil {
		return RootFS{}, err
	}
	defer release()
	lower, err := m.lowerDirs(img)
	if err != nil {
		return RootFS{}, err
	}
	upper, err := m.rootfs.Mount(ctx, rootfs.Request{
		ContainerID: containerID, ImageID: id.String(), Layers: diffIDStrings(img), Lower: lower, Target: target, Options: opts,
	})
	if err != nil {
		return RootFS{}, fmt.Errorf("mount root file system of container %q: %w", containerID, err)
	}
	return RootFS{ImageID: id, Path: target, Upper: upper}, nil
}

// UnmountRootFS unmounts the root file system of a container and deletes the writable layer. It is
// not an error if there is none. If UnmountRootFS fails, the caller can call it again.
func (m *Manager) UnmountRootFS(ctx context.Context, containerID string) error {
	if err := m.rootfs.Unmount(ctx, containerID); err != nil {
		return fmt.Errorf("unmount root file system of container %q: %w", containerID, err)
	}
	return nil
}

// VolumeRequest is a request for a volume with the content of an image.
type VolumeRequest struct {
	ImageID     ID
	ContainerID string
	Index       int // of the volume in the container
	// SubPath is a directory or a file of the image, or "" for the complete image.
	SubPath string
	Options MountOptions
}

// MountVolume mounts an image, or a sub path of it, read-only as a volume of a container, and
// returns the mount point. The image is in use until UnmountVolumes. The errors are ErrNotFound for
// the image or the sub path, and ErrInvalidArgument.
func (m *Manager) MountVolume(ctx context.Context, req VolumeRequest) (path string, err error) {
	img, release, err := m.use(req.ImageID)
	if err != nil {
		return "", err
	}
	defer release()
	lower, err := m.lowerDirs(img)
	if err != nil {
		return "", err
	}
	path, err = m.volumes.Mount(ctx, rootfs.VolumeRequest{
		ContainerID: req.ContainerID, Index: req.Index, ImageID: req.ImageID.String(), Layers: diffIDStrings(img),
		Lower: lower, SubPath: req.SubPath, Options: req.Options,
	})
	if err != nil {
		return "", fmt.Errorf("mount image %s as a volume: %w", req.ImageID, err)
	}
	return path, nil
}

// UnmountVolumes removes all image volumes of a container. It is not an error if there are none. If
// UnmountVolumes fails, the caller can call it again.
func (m *Manager) UnmountVolumes(ctx context.Context, containerID string) error {
	return m.volumes.Unmount(ctx, containerID)
}

// RootFSUsage returns the last measured disk usage of a container's writable layer, which is zero
// before the first measurement, and requests another measurement. It returns ErrNotFound if there
// is no such layer.
func (m *Manager) RootFSUsage(containerID string) (bytes, inodes uint64, err error) {
	u, err := m.rootfs.Usage(containerID)
	return u.Bytes, u.Inodes, err
}
