package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/criserver/criserver/internal/daemon/listen"
)

// phases contains the functions that run calls when the daemon has started and when it stops.
type phases struct {
	serving  func() // the daemon accepts requests
	stopping func() // the context has ended; the daemon completes the requests in progress
}

// run runs the parts until ctx ends or a part fails. The parts end in the reverse order of
// their use: first the server with the requests in progress, then the managers, then the
// plugins, and last the spawner and the watcher, which the managers use until they end.
func (p *parts) run(ctx context.Context, ph phases) error {
	ctx = p.steps.Context(ctx) // for work that no request starts
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	base, managers := newStage(ctx, fail), newStage(ctx, fail)
	base.run(p.watcher.Run)
	base.run(p.spawner.Run)
	if p.tracer != nil {
		base.run(p.runTracer)
	}
	err := p.runManagers(ctx, managers, ph)
	return errors.Join(err, base.end())
}

// runManagers restores the state that an earlier daemon wrote, starts the managers, and
// serves. The managers have ended when runManagers returns.
func (p *parts) runManagers(ctx context.Context, managers *stage, ph phases) error {
	if err := p.restore(ctx); err != nil {
		return err
	}
	managers.run(func(ctx context.Context) error {
		p.live.Load().handlers.Probe(ctx, p.trials.TestUserNamespaces)
		return nil
	})
	managers.run(p.runCRIUCheck)
	managers.run(p.images.Run)
	managers.run(p.pods.Run)
	managers.run(p.containers.Run)
	managers.run(p.restores.Recover)
	managers.run(p.serveMetrics)
	if p.plugins != nil {
		if err := p.plugins.Start(); err != nil {
			return errors.Join(err, managers.end())
		}
		defer p.plugins.Stop() // after the last request and the last manager, which notify plugins
		managers.run(p.plugins.Run)
	}
	p.reloads.begin(ctx, managers)
	err := p.serve(ctx, ph)
	p.reloads.end()
	return errors.Join(err, managers.end())
}

// restore restores images, pods and containers in this order, because containers refer to
// pods and images.
func (p *parts) restore(ctx context.Context) error {
	if err := p.images.Restore(ctx); err != nil {
		return fmt.Errorf("restore images: %w", err)
	}
	if err := p.pods.Recover(ctx); err != nil {
		return fmt.Errorf("restore pods: %w", err)
	}
	if err := p.containers.Recover(ctx); err != nil {
		return fmt.Errorf("recover containers: %w", err)
	}
	p.checkpoint.Recover(ctx)
	if err := p.restores.Load(ctx); err != nil {
		return err
	}
	if err := p.images.Sweep(ctx, p.containers.Holds); err != nil {
		logrus.WithContext(ctx).WithError(err).Warn("delete writable layers of containers that do not exist")
	}
	return nil
}

// serve serves requests until ctx ends. Requests that are in progress then have a grace
// period. The server of the administration API is the first to start and the last to end.
func (p *parts) serve(ctx context.Context, ph phases) error {
	defer p.serveAdmin(ctx)()
	streamListener, err := listen.Streams(p.settings)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.streams.Serve(ctx, streamListener) })
	g.Go(func() error {
		l, err := listen.CRI(p.settings)
		if err != nil {
			return err
		}
		ph.serving()
		defer context.AfterFunc(ctx, ph.stopping)()
		return p.server.Serve(ctx, l)
	})
	return g.Wait()
}

// loadArchives starts to load the archives in the archive directories. Requests do not wait for the archives.
func (p *parts) loadArchives() {
	p.reloads.managers.run(func(ctx context.Context) error {
		p.images.LoadArchives(ctx)
		return nil
	})
}

func (p *parts) logServing(startDuration time.Duration) {
	logrus.WithFields(logrus.Fields{
		"socket": p.settings.Socket, "version": p.version, "pods": len(p.pods.List()), "containers": len(p.containers.List()),
		"duration": startDuration.Round(time.Millisecond).String(),
	}).Info("serving")
}

// stage is a group of parts that run until the stage ends. The context of a stage
// outlives the signal that ends the daemon, so that the parts that use a stage can
// end before it.
type stage struct {
	ctx    context.Context //nolint:containedctx // parts are added during the whole start
	cancel context.CancelFunc
	fail   context.CancelCauseFunc // ends the daemon
	group  errgroup.Group
}

// newStage returns a stage without parts. fail is called with the error of a part.
func newStage(ctx context.Context, fail context.CancelCauseFunc) *stage {
	s := &stage{fail: fail}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return s
}

// run starts a part. An error of the part ends the daemon.
func (s *stage) run(part func(context.Context) error) {
	s.group.Go(func() error {
		err := part(s.ctx)
		if err != nil {
			s.fail(err)
		}
		return err
	})
}

// end ends all parts, waits for them, and returns the first error.
func (s *stage) end() error {
	s.cancel()
	return s.group.Wait()
}
