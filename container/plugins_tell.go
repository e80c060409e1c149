package container

import (
	"context"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func (m *Manager) notifyCreated(ctx context.Context, c *container) {
	c.made = nil
	if m.cfg.Plugins != nil {
		m.cfg.Plugins.Created(ctx, c.snap.Load())
	}
}

// notifyUndone is for a creation that failed after plugins were asked.
func (m *Manager) notifyUndone(ctx context.Context, c *container, s *Snapshot) {
	if m.cfg.Plugins != nil && c.consulted {
		m.cfg.Plugins.Removed(ctx, s, c.made)
	}
}

// consultStart ends the container when plugins refuse the start, as when the
// runtime does.
func (m *Manager) consultStart(ctx context.Context, c *container) error {
	if m.cfg.Plugins == nil {
		return nil
	}
	err := m.cfg.Plugins.Start(ctx, c.snap.Load())
	if err != nil && ctx.Err() == nil {
		m.cannotRun(c, err)
	}
	return err
}

func (m *Manager) tellStarted(ctx context.Context, c *container) {
	if m.cfg.Plugins != nil {
		m.cfg.Plugins.Started(ctx, c.snap.Load())
	}
}

func (m *Manager) consultUpdate(ctx context.Context, s *Snapshot, r *cri.LinuxContainerResources) (Limits, func(context.Context), error) {
	if m.cfg.Plugins == nil {
		return Limits{CRI: r}, nil, nil
	}
	return m.cfg.Plugins.Update(ctx, s, Limits{CRI: r})
}

func (m *Manager) tellUpdated(ctx context.Context, c *container) {
	if m.cfg.Plugins != nil {
		m.cfg.Plugins.Updated(ctx, c.snap.Load())
	}
}

// removalOf keeps what plugins are to be told once the container has gone, and
// with it the file.
func (m *Manager) removalOf(c *container) (tell func(context.Context)) {
	if m.cfg.Plugins == nil {
		return func(context.Context) {}
	}
	s := c.snap.Load()
	var spec *specs.Spec
	if m.cfg.Plugins.Any() {
		spec, _ = s.Spec() // there is none of a container that was not made to the end
	}
	return func(ctx context.Context) { m.cfg.Plugins.Removed(ctx, s, spec) }
}
