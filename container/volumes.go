package container

import (
	"context"
	"fmt"
	"path/filepath"

	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"

	"github.com/criserver/criserver/oci"
)

// volumeImages returns the ids of the images that are to be mounted, by the
// index of the mount. They must be there: the kubelet pulls them first.
func (m *Manager) volumeImages(c *cri.ContainerConfig) (map[int]string, error) {
	var found map[int]string
	for i, mount := range c.GetMounts() {
		if mount.GetImage() == nil {
			continue
		}
		image, err := m.cfg.Images.Image(mount.GetImage().GetImage())
		if err != nil {
			return nil, fmt.Errorf("config.mounts[%d].image: %w: %w", i, crierrors.ErrImageVolumeMountFailed, err)
		}
		if found == nil {
			found = make(map[int]string)
		}
		found[i] = image.ID
	}
	return found, nil
}

// mountVolumes mounts those images and returns where, by the same index.
func (m *Manager) mountVolumes(ctx context.Context, c *container, p *plan) (map[int]string, error) {
	if len(c.rec.Volumes) == 0 {
		return nil, nil
	}
	c.enter("mount image volumes")
	paths := make(map[int]string, len(c.rec.Volumes))
	for i, id := range c.rec.Volumes {
		path, err := m.cfg.Images.MountVolume(ctx, ImageVolume{
			ContainerID: c.id, Index: i, ImageID: id, SubPath: c.config.GetMounts()[i].GetImageSubPath(),
			UserNS: p.pod.UserNS, Label: p.labels.mount,
		})
		if err != nil {
			return nil, fmt.Errorf("config.mounts[%d].image: %w: %w", i, crierrors.ErrImageVolumeMountFailed, err)
		}
		paths[i] = path
	}
	return paths, nil
}

// imageMount is the mount of an image that has been mounted at source. It is
// read-only whatever the request says: all such mounts are, by definition (CRI,
// Mount.image). Programs in it may run, as the feature's users expect, unless
// the mount options forbid it.
func imageMount(m *cri.Mount, source string) oci.Mount {
	return oci.Mount{
		Source: source, Destination: filepath.Clean(m.GetContainerPath()), ReadOnly: true, RecursiveReadOnly: m.GetRecursiveReadOnly(),
		Propagation: m.GetPropagation(), Options: append([]string{"nosuid", "nodev"}, m.GetMountOptions()...),
	}
}

// effectiveMounts are the request's mounts as they came to be: those of images
// are read-only, and image_ref is the id of what was mounted, which PullImage
// returned.
func effectiveMounts(c *cri.ContainerConfig, images map[int]string) []*cri.Mount {
	if len(images) == 0 {
		return c.GetMounts()
	}
	mounts := make([]*cri.Mount, len(c.GetMounts()))
	for i, m := range c.GetMounts() {
		mounts[i] = m
		if id := images[i]; id != "" {
			mounts[i] = proto.CloneOf(m)
			mounts[i].Readonly = true
			mounts[i].Image.ImageRef = id
		}
	}
	return mounts
}
