package daemon

import (
	"context"
	"path/filepath"

	"github.com/criserver/criserver/checkpoint/restore"
)

// newRestores returns the manager of restores. The other managers must exist.
func newRestores(p *parts) *restore.Manager {
	return restore.New(restore.Config{
		Dir: filepath.Join(p.settings.RunDir, "restores"), KeyFile: p.checkpointKey(),
		Archives: func() bool { return p.live.Load().settings.Checkpoint.RestoreFromArchives }, CgroupV2: p.host.cgroups.V2(), Pods: p.pods, Containers: p.containers,
		CRIU: func(ctx context.Context, handler string) (string, error) {
			if handler == "" {
				handler = p.live.Load().handlers.Default()
			}
			program, _, err := p.Programs(ctx, handler)
			return program.Path, err
		},
	})
}
