package daemon

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/criserver/criserver/checkpoint/restore"
	"github.com/criserver/criserver/image"
	"github.com/criserver/criserver/internal/criu"
	"github.com/criserver/criserver/internal/ids"
)

// newRestores returns the manager of restores. The other managers must exist.
func newRestores(p *parts) *restore.Manager {
	return restore.New(restore.Config{
		Dir: filepath.Join(p.settings.RunDir, "restores"), KeyFile: p.checkpointKey(),
		Archives: func() bool { return p.live.Load().settings.Checkpoint.RestoreFromArchives }, CgroupV2: p.host.cgroups.V2(),
		Pods: p.pods, Containers: p.containers, ReadImage: p.readImage,
		CRIU: func(ctx context.Context, handler string) (criu.Program, error) {
			if handler == "" {
				handler = p.live.Load().handlers.Default()
			}
			program, _, err := p.Programs(ctx, handler)
			return program, err
		},
	})
}

// readImage mounts an image read-only, calls read with the mount point, and unmounts the image. The volume has a new id
// instead of the id of a container. If the daemon dies during the call, the next daemon unmounts the volume, because no
// container has this id.
func (p *parts) readImage(ctx context.Context, id string, read func(dir string) error) (err error) {
	owner := ids.New()
	dir, err := p.images.MountVolume(ctx, image.VolumeRequest{ImageID: digest.Digest(id), ContainerID: owner})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.images.UnmountVolumes(context.WithoutCancel(ctx), owner)) }()
	return read(dir)
}
