package container

import (
	"context"
	"fmt"

	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/internal/steps"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
)

func (m *Manager) mountRootFS(ctx context.Context, c *container, p *plan) error {
	ctx, step := steps.Start(ctx, steps.RootFSMount)
	err := m.cfg.Images.Mount(ctx, RootFS{
		ImageID: p.image.ID, ContainerID: c.id, Target: c.rootfs(), UserNS: p.pod.UserNS, Label: p.labels.Mount,
	})
	step.End(err)
	return err
}

// findVolumeImages returns the ids of the images that are mounted as volumes, by the index of
// the mount. The kubelet has pulled the images before it creates the container.
func (m *Manager) findVolumeImages(mounts []containerspec.Mount) (map[int]string, error) {
	var found map[int]string
	for i, mount := range mounts {
		if mount.Image == "" {
			continue
		}
		image, err := m.cfg.Images.Image(mount.Image)
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

// mountImageVolumes mounts the images of the record and returns their paths, by the index of
// the mount.
func (m *Manager) mountImageVolumes(ctx context.Context, c *container, p *plan) (_ map[int]string, err error) {
	if len(c.rec.Volumes) == 0 {
		return nil, nil
	}
	c.enter("mount image volumes")
	ctx, step := steps.Start(ctx, steps.VolumeMount)
	defer step.EndWith(&err)
	paths := make(map[int]string, len(c.rec.Volumes))
	for i, id := range c.rec.Volumes {
		path, err := m.cfg.Images.MountVolume(ctx, ImageVolume{
			ContainerID: c.id, Index: i, ImageID: id, SubPath: p.spec.Mounts[i].SubPath, UserNS: p.pod.UserNS, Label: p.labels.Mount,
		})
		if err != nil {
			return nil, fmt.Errorf("config.mounts[%d].image: %w: %w", i, crierrors.ErrImageVolumeMountFailed, err)
		}
		paths[i] = path
	}
	return paths, nil
}

// effectiveMounts returns the mounts that a Snapshot shows. They are the requested
// mounts, but mounts of images are read-only, and their image_ref is the id of the
// mounted image, which PullImage returned.
func effectiveMounts(c *cri.ContainerConfig, imageIDs map[int]string) []*cri.Mount {
	if len(imageIDs) == 0 {
		return c.GetMounts()
	}
	mounts := make([]*cri.Mount, len(c.GetMounts()))
	for i, m := range c.GetMounts() {
		mounts[i] = m
		if id := imageIDs[i]; id != "" && m.GetImage() != nil { // a damaged record can disagree with its config
			mounts[i] = proto.CloneOf(m)
			mounts[i].Readonly = true
			mounts[i].Image.ImageRef = id
		}
	}
	return mounts
}
