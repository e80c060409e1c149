package image

import (
	"context"
	"fmt"

	"github.com/criserver/criserver/image/rootfs"
)

// MountOptions are what can be asked of a root file system.
type MountOptions = rootfs.Options

// MountRootFS makes a writable layer for the container and mounts its root file
// system, writable, at target, an existing directory. What an earlier try for
// the same container has left is removed first. From then on the image is in
// use. Errors: ErrNotFound, ErrInvalidArgument, ErrFailedPrecondition.
func (m *Manager) MountRootFS(ctx context.Context, id ID, containerID, target string) (RootFS, error) {
	return m.MountRootFSWith(ctx, id, containerID, target, MountOptions{})
}

// MountRootFSWith is MountRootFS with options.
func (m *Manager) MountRootFSWith(ctx context.Context, id ID, containerID, target string, opts MountOptions) (RootFS, error) {
	img, done, err := m.use(id)
	if err != nil {
		return RootFS{}, err
	}
	defer done()
	lower, err := m.lower(img)
	if err != nil {
		return RootFS{}, err
	}
	upper, err := m.rootfs.Mount(ctx, rootfs.Request{
		ContainerID: containerID, ImageID: id.String(), Layers: layerNames(img), Lower: lower, Target: target, Options: opts,
	})
	if err != nil {
		return RootFS{}, fmt.Errorf("mount root file system of container %q: %w", containerID, err)
	}
	return RootFS{ImageID: id, Path: target, Upper: upper}, nil
}

// UnmountRootFS unmounts the container's root file system and deletes its
// writable layer. An unknown container is no error. When it fails, nothing has
// changed, and it can be asked for again.
func (m *Manager) UnmountRootFS(ctx context.Context, containerID string) error {
	if err := m.rootfs.Unmount(ctx, containerID); err != nil {
		return fmt.Errorf("unmount root file system of container %q: %w", containerID, err)
	}
	return nil
}

// VolumeRequest asks for a volume that shows an image.
type VolumeRequest struct {
	ImageID     ID
	ContainerID string
	Index       int // among the container's volumes
	// SubPath is what of the image to show, a directory or a file; "" for all.
	SubPath string
	Options MountOptions
}

// MountVolume mounts an image, or a part of it, read-only for a container to
// have as a volume, and returns the mount point. From then on the image is in
// use. Errors: ErrNotFound for the image and the sub path, ErrInvalidArgument.
func (m *Manager) MountVolume(ctx context.Context, req VolumeRequest) (path string, err error) {
	img, done, err := m.use(req.ImageID)
	if err != nil {
		return "", err
	}
	defer done()
	lower, err := m.lower(img)
	if err != nil {
		return "", err
	}
	path, err = m.volumes.Mount(ctx, rootfs.VolumeRequest{
		ContainerID: req.ContainerID, Index: req.Index, ImageID: req.ImageID.String(), Layers: layerNames(img),
		Lower: lower, SubPath: req.SubPath, Options: req.Options,
	})
	if err != nil {
		return "", fmt.Errorf("mount image %s as a volume: %w", req.ImageID, err)
	}
	return path, nil
}

// UnmountVolumes removes all image volumes of a container. An unknown container
// is no error. When it fails, it can be asked for again.
func (m *Manager) UnmountVolumes(ctx context.Context, containerID string) error {
	return m.volumes.Unmount(ctx, containerID)
}
