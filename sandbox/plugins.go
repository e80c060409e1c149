package sandbox

import (
	"context"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Plugins are told of each step in a pod's life. Every call may take as long as
// plugins are given time for, and is made with no lock held but the pod's
// operation lock.
type Plugins interface {
	// Run is for a pod that is complete and not shown yet. An error is a refusal:
	// the pod is taken down. Shown or Removed follows.
	Run(ctx context.Context, p *Pod) error
	Shown(p *Pod)
	// Update is for other limits of a pod, of which nil ones stay as they are. An
	// error is a refusal.
	Update(ctx context.Context, p *Pod, overhead, resources *cri.LinuxContainerResources) error
	Updated(ctx context.Context, p *Pod)
	// Stopped is for a pod whose containers have ended, and which still has its
	// namespaces and network. It is called once.
	Stopped(ctx context.Context, p *Pod)
	// Removed is for a pod that has gone, also one that could not be made.
	Removed(ctx context.Context, p *Pod)
}

// consult asks plugins about a pod that is all but ready.
func (b *build) consult(ctx context.Context) error {
	if b.m.cfg.Plugins == nil {
		return nil
	}
	defer b.stages.enter("NRI plugins")()
	b.inPlugins = true
	return b.m.cfg.Plugins.Run(ctx, b.m.snapshot(b.entry()))
}

func (m *Manager) consultUpdate(ctx context.Context, e *entry, overhead, resources *cri.LinuxContainerResources) error {
	if m.cfg.Plugins == nil {
		return nil
	}
	return m.cfg.Plugins.Update(ctx, e.pod, overhead, resources)
}

func (m *Manager) tellUpdated(ctx context.Context, e *entry) {
	if m.cfg.Plugins != nil {
		m.cfg.Plugins.Updated(ctx, e.pod)
	}
}

// tellStopped is for teardown, on an entry that is not published.
func (m *Manager) tellStopped(ctx context.Context, e *entry) {
	if m.cfg.Plugins == nil || !e.inPlugins {
		return
	}
	e.inPlugins = false
	m.cfg.Plugins.Stopped(ctx, m.snapshot(e))
}

// tellRemoved is for a pod that plugins were asked about.
func (m *Manager) tellRemoved(ctx context.Context, p *Pod) {
	if m.cfg.Plugins == nil || p == nil {
		return
	}
	m.cfg.Plugins.Removed(ctx, p)
}
