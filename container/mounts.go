package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/internal/userns"
	"github.com/criserver/criserver/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
)

// resolveMounts looks up the host paths of the mounts. imagePaths has the paths at which
// the image volumes are mounted, by the index of the mount.
func (m *Manager) resolveMounts(ctx context.Context, p *plan, imagePaths map[int]string) ([]oci.Mount, error) {
	mounts := make([]oci.Mount, 0, len(p.spec.Mounts))
	for i, requested := range p.spec.Mounts {
		if source := imagePaths[i]; source != "" {
			mounts = append(mounts, imageMount(requested, source))
			continue
		}
		mount, err := m.hostMount(ctx, requested)
		if err != nil {
			return nil, fmt.Errorf("config.mounts[%d].host_path: %w", i, err)
		}
		if err := m.mapMount(&mount, requested.IDMaps, p.pod); err != nil {
			return nil, fmt.Errorf("config.mounts[%d].uidMappings: %w", i, err)
		}
		mounts = append(mounts, mount)
	}
	return mounts, nil
}

func (m *Manager) hostMount(ctx context.Context, r containerspec.Mount) (oci.Mount, error) {
	source, err := m.mountSource(ctx, r.HostPath)
	if err != nil {
		return oci.Mount{}, err
	}
	if err := oci.CheckPropagation(source, r.Propagation); err != nil {
		return oci.Mount{}, err
	}
	options, err := oci.MountRestrictions(source)
	if err != nil {
		return oci.Mount{}, err
	}
	return oci.Mount{
		Source: source, Destination: r.Destination, ReadOnly: r.ReadOnly, RecursiveReadOnly: r.RecursiveReadOnly,
		Propagation: r.Propagation, Options: append(options, r.Options...),
	}, nil
}

// mountSource resolves the links in a host path. If the path does not exist, mountSource
// makes a directory, unless the operator has set RefuseMissingHostPaths: the CRI wants
// an error, but the kubelet does not check hostPath volumes without a type, and pods
// rely on the directory that all runtimes have always made.
func (m *Manager) mountSource(ctx context.Context, path string) (string, error) {
	source, err := filepath.EvalSymlinks(path)
	if err == nil {
		return source, nil
	}
	if _, lerr := os.Lstat(path); lerr == nil || !errors.Is(err, fs.ErrNotExist) {
		return "", invalid("%v", err) // includes a dangling link
	}
	if m.cfg.RefuseMissingHostPaths {
		return "", fmt.Errorf("%q does not exist: %w", path, errdefs.ErrNotFound)
	}
	logrus.WithContext(ctx).WithField("path", path).Info("the host path of a mount does not exist: make a directory")
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// imageMount returns the mount of an image that is mounted at source. The mount is always
// read-only, also if the request does not ask for it, as the CRI defines for all images
// (Mount.image).
// Programs in it can run, as the users of image volumes expect, unless the mount options
// forbid it.
func imageMount(r containerspec.Mount, source string) oci.Mount {
	return oci.Mount{
		Source: source, Destination: r.Destination, ReadOnly: true, RecursiveReadOnly: r.RecursiveReadOnly,
		Propagation: r.Propagation, Options: append([]string{"nosuid", "nodev"}, r.Options...),
	}
}

// mapMount lets the runtime map the ids of a mount. It tries the mapping first: if the
// kernel cannot map the file system, the message of the runtime would not name the mount.
func (m *Manager) mapMount(mount *oci.Mount, maps userns.Maps, p Pod) error {
	if len(maps.UIDs) == 0 {
		return nil
	}
	mount.UIDMappings, mount.GIDMappings = specMappings(maps.UIDs), specMappings(maps.GIDs)
	if p.UserNS == "" || !maps.Equal(containerspec.UserMaps(p.Config)) {
		return nil // the trial needs a user namespace with the same maps
	}
	submounts, err := oci.CheckIDMap(mount.Source, p.UserNS)
	if err != nil {
		return fmt.Errorf("host_path: %w", err)
	}
	if submounts && m.cfg.MapsSubmounts != nil && !m.cfg.MapsSubmounts(p.RuntimeHandler) {
		return fmt.Errorf("there are mounts below %s, whose ids runtime handler %q cannot map: %w", mount.Source, p.RuntimeHandler, errdefs.ErrFailedPrecondition)
	}
	mount.MapSubmounts = submounts
	return nil
}

func specMappings(list []userns.Mapping) []specs.LinuxIDMapping {
	out := make([]specs.LinuxIDMapping, len(list))
	for i, m := range list {
		out[i] = specs.LinuxIDMapping{ContainerID: m.ContainerID, HostID: m.HostID, Size: m.Size}
	}
	return out
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
func (m *Manager) mountImageVolumes(ctx context.Context, c *container, p *plan) (map[int]string, error) {
	if len(c.rec.Volumes) == 0 {
		return nil, nil
	}
	c.enter("mount image volumes")
	paths := make(map[int]string, len(c.rec.Volumes))
	for i, id := range c.rec.Volumes {
		path, err := m.cfg.Images.MountVolume(ctx, ImageVolume{
			ContainerID: c.id, Index: i, ImageID: id, SubPath: p.spec.Mounts[i].SubPath, UserNS: p.pod.UserNS, Label: p.labels.mount,
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
