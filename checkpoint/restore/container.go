package restore

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/criserver/criserver/checkpoint/archive"
	"github.com/criserver/criserver/container"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// IsArchive reports whether CreateContainer restores a container whose config has this image: the image is an absolute
// path, which no reference of an image is.
func (m *Manager) IsArchive(image string) bool { return filepath.IsAbs(image) }

// CreateContainer creates a container from the archive at the path config.image. The container is CREATED and has no
// process. Only files and process images come from the archive. The image of the container is the image of the
// checkpoint, which must be on the node; everything else comes from config.
//
// Errors: ErrNotFound if there is no archive or no image; ErrInvalidArgument for an archive that breaks a rule of the
// format; ErrFailedPrecondition if the configuration does not allow archives, the archive is not from this node, or the
// archive does not fit the request; ErrNotImplemented if containers of the handler of the pod cannot be restored; and
// the errors of the creation of containers.
func (m *Manager) CreateContainer(ctx context.Context, podID string, config *cri.ContainerConfig) (string, error) {
	path := config.GetImage().GetImage()
	id, err := m.createContainer(ctx, podID, config, path)
	if err != nil {
		return "", fmt.Errorf("create container from the checkpoint %q: %w", path, err)
	}
	return id, nil
}

func (m *Manager) createContainer(ctx context.Context, podID string, config *cri.ContainerConfig, path string) (string, error) {
	if !m.cfg.Archives() {
		return "", mismatch("config.image is the path of a file, and the configuration does not allow checkpoint archives: checkpoint.restore_from_archives is false")
	}
	key, err := archive.ReadKey(m.cfg.KeyFile)
	if err != nil {
		return "", err
	}
	info, err := readInfo(path)
	if err != nil {
		return "", err
	}
	pod, err := m.cfg.Pods.Get(podID)
	if err != nil {
		return "", err
	}
	handler := pod.EffectiveHandler()
	if handler != info.Runtime.Handler {
		return "", mismatch("the pod has the runtime handler %q, the checkpoint has %q", handler, info.Runtime.Handler)
	}
	criu, err := m.cfg.CRIU(ctx, handler)
	if err != nil {
		return "", err
	}
	config = proto.CloneOf(config)
	config.Image.Image = info.Container.ImageID
	// The creation continues when this caller leaves, because a retry can join it.
	u := &unpacker{ctx: context.WithoutCancel(ctx), m: m}
	return m.cfg.Containers.CreateRestored(ctx, pod.ID, config, container.Restore{
		Unpack: func(ctx context.Context, rootfs, images string) error {
			return u.unpackFile(ctx, path, key, rootfs, images)
		},
		Check: u.check, Args: restoreArgs(), Env: environment(criu),
	})
}

// readInfo returns the description of the container in an archive. The description is not authenticated.
func readInfo(path string) (*archive.ContainerInfo, error) {
	f, err := archive.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return archive.ReadInfo(f)
}

// unpackFile unpacks and authenticates an archive. The file may have changed since the call of readInfo: check compares
// the image of the container with the description that was authenticated.
func (u *unpacker) unpackFile(ctx context.Context, path string, key archive.Key, rootfs, images string) error {
	f, err := archive.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	u.size = info.Size()
	return u.unpack(ctx, archive.NewAuthenticReader(f, key), rootfs, images)
}
