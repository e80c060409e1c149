package sandbox

import (
	"context"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/sandbox/podspec"
	"github.com/sirupsen/logrus"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// UpdateResources notes what a ready pod as a whole may have from now on: its
// overhead, and the sum of its containers' limits. One that is nil stays as it
// is; one that is given replaces the former as a whole. The pod's cgroup is the
// kubelet's, who has changed it before (CRI, UpdatePodSandboxResources), so no
// limit is written here. Errors: ErrNotFound, ErrInvalidArgument, and
// ErrFailedPrecondition for a pod that is not ready.
func (m *Manager) UpdateResources(ctx context.Context, id string, overhead, resources *cri.LinuxContainerResources) error {
	e, err := m.find(id)
	if err != nil {
		return fmt.Errorf("update pod sandbox: %w", err)
	}
	id = e.rec.ID
	if err := m.cfg.node().CheckPodResources("", overhead, resources); err != nil {
		return fmt.Errorf("update pod sandbox %q: %w", id, err)
	}
	unlock, err := m.ops.Lock(ctx, id)
	if err != nil {
		return fmt.Errorf("update pod sandbox %q: %w", id, err)
	}
	defer unlock()
	if e = m.view.Load().entries[id]; e == nil {
		return fmt.Errorf("update pod sandbox %q: %w", id, errdefs.ErrNotFound)
	}
	if !e.rec.ready() {
		return fmt.Errorf("update pod sandbox %q: it is not ready (%s): %w", id, e.rec.notReadyReason(), errdefs.ErrFailedPrecondition)
	}
	if err := m.pluginsUpdate(ctx, e, overhead, resources); err != nil {
		return fmt.Errorf("update pod sandbox %q: %w", id, err)
	}
	next, err := e.withResources(overhead, resources)
	if err != nil {
		return fmt.Errorf("update pod sandbox %q: %w", id, err)
	}
	if err := m.dirs.write(next.rec); err != nil {
		return fmt.Errorf("update pod sandbox %q: %w", id, err)
	}
	m.publish(next)
	logrus.WithContext(ctx).WithField("pod", id).Info("pod sandbox updated")
	m.pluginsUpdated(ctx, next)
	return nil
}

// withResources returns the entry with other limits, recorded and not published.
func (e *entry) withResources(overhead, resources *cri.LinuxContainerResources) (*entry, error) {
	now := &cri.LinuxPodSandboxConfig{Overhead: e.pod.Overhead, Resources: e.pod.Resources}
	if overhead != nil {
		now.Overhead = overhead
	}
	if resources != nil {
		now.Resources = resources
	}
	next := e.copy()
	var err error
	if next.rec.Updated, err = proto.Marshal(now); err != nil {
		return nil, fmt.Errorf("record the resources: %w", err)
	}
	return next, nil
}

// limits are those in force: of the last update, or else of the request.
func (r *record) limits(spec *podspec.Spec) (overhead, resources *cri.LinuxContainerResources) {
	if r.Updated == nil {
		return spec.Overhead, spec.Resources
	}
	now := &cri.LinuxPodSandboxConfig{}
	if err := proto.Unmarshal(r.Updated, now); err != nil {
		// It is shown to people and guides nothing that would need it right.
		logrus.WithError(err).WithField("pod", r.ID).Warn("resources of the pod sandbox cannot be read")
		return nil, nil
	}
	return now.GetOverhead(), now.GetResources()
}
