package sandbox

import (
	"context"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Plugins are the NRI plugins, which are notified of each step in the life cycle of a pod. A call
// may take as long as the plugins are allowed to take. During a call, the caller holds only the
// operation lock of the pod.
type Plugins interface {
	// Run is called for a pod that is complete but not published. If Run returns an error, the pod is torn down. Either
	// Published or Removed follows.
	Run(ctx context.Context, p *Pod) error
	// Published is called when clients can see the pod.
	Published(ctx context.Context, p *Pod)
	// Update is called before the resource limits of a pod change. Limits that are nil do not change. If Update returns
	// an error, no limit changes.
	Update(ctx context.Context, p *Pod, overhead, resources *cri.LinuxContainerResources) error
	// Updated is called after the resource limits of a pod have changed.
	Updated(ctx context.Context, p *Pod)
	// Stopped is called once, for a pod whose containers have exited and which still has its namespaces and network.
	Stopped(ctx context.Context, p *Pod)
	// Removed is called for a pod that was removed, and for a pod whose creation failed after Run.
	Removed(ctx context.Context, p *Pod)
}

// runPlugins calls Plugins.Run.
func (b *build) runPlugins(ctx context.Context) error {
	if b.m.cfg.Plugins == nil {
		return nil
	}
	defer b.stages.enter("NRI plugins")()
	b.inPlugins = true
	return b.m.cfg.Plugins.Run(ctx, b.m.snapshot(b.entry()))
}

// notify calls event, a method of Plugins, if there are plugins.
func (m *Manager) notify(ctx context.Context, p *Pod, event func(Plugins, context.Context, *Pod)) {
	if m.cfg.Plugins != nil {
		event(m.cfg.Plugins, ctx, p)
	}
}
