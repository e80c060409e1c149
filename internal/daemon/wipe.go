package daemon

import (
	"context"
	"errors"

	"github.com/criserver/criserver/config"
	"github.com/criserver/criserver/internal/daemon/wipe"
)

// Wipe removes all pods and containers, and on request all images, while no daemon runs: see wipe.Run. As at each start
// of the daemon, it first removes the leftovers of operations that were interrupted.
//
// Errors: ErrInUse if a daemon runs, and the errors of wipe.Run.
func Wipe(ctx context.Context, settings config.Config, opts wipe.Options) (err error) {
	locks, err := lockDirs(settings.Root, settings.RunDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, locks.release()) }()
	settings.NRI.Enable = false // plugins must not prevent the removal
	settings.Streaming = config.Default().Streaming
	p, err := build(ctx, Config{Settings: settings})
	if err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	base, managers := newStage(ctx, fail), newStage(ctx, fail)
	base.run(p.watcher.Run)
	base.run(p.spawner.Run)
	defer func() { err = errors.Join(err, base.end()) }()
	if err := p.restore(ctx); err != nil {
		return err
	}
	return wipe.Run(ctx, wipe.Managers{
		Pods: p.pods, Containers: p.containers, Images: p.images, Cgroups: p.host.cgroups, Watcher: p.watcher,
		Start: func() func() error {
			managers.run(p.pods.Run)
			managers.run(p.containers.Run)
			return managers.end
		},
	}, opts)
}
