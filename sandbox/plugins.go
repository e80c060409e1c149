package sandbox

import "context"

// Plugins are told of each step in a pod's life. Every call may take as long as
// plugins are given time for, and is made with no lock held but the pod's
// operation lock.
type Plugins interface {
	// Run is for a pod that is complete and not shown yet. An error is a refusal:
	// the pod is taken down. Shown or Removed follows.
	Run(ctx context.Context, p *Pod) error
	Shown(p *Pod)
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
	b.told = true
	return b.m.cfg.Plugins.Run(ctx, b.m.snapshot(b.entry()))
}

// tellStopped is for teardown, on an entry that is not published.
func (m *Manager) tellStopped(ctx context.Context, e *entry) {
	if m.cfg.Plugins == nil || !e.told {
		return
	}
	e.told = false
	m.cfg.Plugins.Stopped(ctx, m.snapshot(e))
}

// tellRemoved is for a pod that plugins were asked about.
func (m *Manager) tellRemoved(ctx context.Context, p *Pod) {
	if m.cfg.Plugins == nil || p == nil {
		return
	}
	m.cfg.Plugins.Removed(ctx, p)
}
