package restore

import (
	"context"
	"errors"
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
	id, err := m.createContainer(ctx, podID, config, &archiveFile{path: path})
	if err != nil {
		return "", fmt.Errorf("create container from the checkpoint %q: %w", path, err)
	}
	return id, nil
}

// CreateContainerFromImage is CreateContainer for an archive that another program has unpacked into the image with the
// id imageID. CreateContainerFromImage verifies each file of the archive. It also returns ErrDataLoss for a file that
// differs from the archive.
func (m *Manager) CreateContainerFromImage(ctx context.Context, podID string, config *cri.ContainerConfig, imageID string) (string, error) {
	id, err := m.createContainer(ctx, podID, config, &archiveImage{m: m, id: imageID})
	if err != nil {
		return "", fmt.Errorf("create container from the checkpoint in the image %q: %w", config.GetImage().GetImage(), err)
	}
	return id, nil
}

// containerArchive is the place of the archive of one container.
type containerArchive interface {
	// info returns the description of the container, which can be unauthenticated.
	info(ctx context.Context, key archive.Key) (*archive.ContainerInfo, error)
	// unpack calls u.unpack with the entries of the archive, and authenticates them. The archive may have changed since
	// the call of info: unpacker.check compares the image of the container with the description that unpack has
	// authenticated.
	unpack(ctx context.Context, u *unpacker, key archive.Key, rootfs, images string) error
}

func (m *Manager) createContainer(ctx context.Context, podID string, config *cri.ContainerConfig, from containerArchive) (string, error) {
	if !m.cfg.Archives() {
		return "", mismatch("config.image is a checkpoint, and the configuration does not allow the restore of containers from archives: " +
			"checkpoint.restore_from_archives is false")
	}
	key, err := archive.ReadKey(m.cfg.KeyFile)
	if err != nil {
		return "", err
	}
	info, err := from.info(ctx, key)
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
	program, err := m.cfg.CRIU(ctx, handler)
	if err != nil {
		return "", err
	}
	config = proto.CloneOf(config)
	config.Image.Image = info.Container.ImageID
	// The creation continues when this caller leaves, because a retry can join it.
	u := &unpacker{ctx: context.WithoutCancel(ctx), m: m, criu: program.Version}
	return m.cfg.Containers.CreateRestored(ctx, pod.ID, config, container.Restore{
		Unpack: func(ctx context.Context, rootfs, images string) error {
			return from.unpack(ctx, u, key, rootfs, images)
		},
		Check: u.check, Args: restoreArgs(), Env: environment(program.Path),
	})
}

// archiveFile is an archive in a file.
type archiveFile struct{ path string }

func (a *archiveFile) info(context.Context, archive.Key) (*archive.ContainerInfo, error) {
	f, err := archive.Open(a.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return archive.ReadInfo(f)
}

func (a *archiveFile) unpack(ctx context.Context, u *unpacker, key archive.Key, rootfs, images string) error {
	f, err := archive.Open(a.path)
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

// archiveImage is an archive that was unpacked into an image.
type archiveImage struct {
	m  *Manager
	id string // of the image
}

// read mounts the image and calls fn with a reader of the archive.
func (a *archiveImage) read(ctx context.Context, key archive.Key, fn func(*archive.Tree) error) error {
	return a.m.cfg.ReadImage(ctx, a.id, func(dir string) error {
		tree, err := archive.OpenTree(ctx, dir, key)
		if err != nil {
			return err
		}
		return errors.Join(fn(tree), tree.Close())
	})
}

func (a *archiveImage) info(ctx context.Context, key archive.Key) (info *archive.ContainerInfo, err error) {
	err = a.read(ctx, key, func(t *archive.Tree) (err error) {
		info, err = t.Info()
		return err
	})
	return info, err
}

func (a *archiveImage) unpack(ctx context.Context, u *unpacker, key archive.Key, rootfs, images string) error {
	return a.read(ctx, key, func(t *archive.Tree) error {
		u.size = t.Size()
		return u.unpack(ctx, t, rootfs, images)
	})
}
