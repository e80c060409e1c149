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

// UpdateResources records new resource limits of a ready pod as a whole: its overhead, and the sum of the limits of its
// containers. A message that is nil leaves its limits unchanged; a message that is not nil replaces all its limits.
//
// UpdateResources writes no limit to the pod's cgroup. The cgroup belongs to the kubelet, which has written the limits
// before the request (CRI, UpdatePodSandboxResources).
//
// Errors: ErrNotFound, ErrInvalidArgument, and ErrFailedPrecondition for a pod that is not ready.
func (m *Manager) UpdateResources(ctx context.Context, id string, overhead, resources *cri.LinuxContainerResources) error {
	e, err := m.find(id)
	if err != nil {
		return fmt.Errorf("update pod sandbox: %w", err)
	}
	if err := m.updateResources(ctx, e.rec.ID, overhead, resources); err != nil {
		return fmt.Errorf("update pod sandbox %q: %w", e.rec.ID, err)
	}
	return nil
}

// updateResources checks and records the overhead and the resources of a ready pod.
func (m *Manager) updateResources(ctx context.Context, id string, overhead, resources *cri.LinuxContainerResources) error {
	if err := m.node(m.settings.Load()).CheckPodResources("", overhead, resources); err != nil {
		return err
	}
	unlock, err := m.ops.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	e := m.view.Load().entries[id]
	if e == nil {
		return errdefs.ErrNotFound
	}
	if !e.rec.ready() {
		return fmt.Errorf("pod sandbox is not ready (%s): %w", e.rec.notReadyReason(), errdefs.ErrFailedPrecondition)
	}
	if plugins := m.cfg.Plugins; plugins != nil {
		if err := plugins.Update(ctx, e.pod, overhead, resources); err != nil {
			return err
		}
	}
	next, err := e.withResources(overhead, resources)
	if err != nil {
		return err
	}
	if err := m.dirs.write(next.rec); err != nil {
		return err
	}
	m.publish(next)
	logrus.WithContext(ctx).WithField("pod", id).Info("pod sandbox updated")
	m.notify(ctx, next.pod, Plugins.Updated)
	return nil
}

// withResources returns a copy of the entry with new limits.
func (e *entry) withResources(overhead, resources *cri.LinuxContainerResources) (*entry, error) {
	limits := &cri.LinuxPodSandboxConfig{Overhead: e.pod.Overhead, Resources: e.pod.Resources}
	if overhead != nil {
		limits.Overhead = overhead
	}
	if resources != nil {
		limits.Resources = resources
	}
	next := e.copy()
	var err error
	if next.rec.Updated, err = proto.Marshal(limits); err != nil {
		return nil, fmt.Errorf("encode the resources: %w", err)
	}
	return next, nil
}

// limits returns the limits of the last update, or the limits of the request if there was no update.
func (r *record) limits(spec *podspec.Spec) (overhead, resources *cri.LinuxContainerResources) {
	if r.Updated == nil {
		return spec.Overhead, spec.Resources
	}
	limits := &cri.LinuxPodSandboxConfig{}
	if err := proto.Unmarshal(r.Updated, limits); err != nil {
		// The limits are only shown to users, so the pod can do without them.
		logrus.WithError(err).WithField("pod", r.ID).Warn("cannot read the resources of the pod sandbox")
		return nil, nil
	}
	return limits.GetOverhead(), limits.GetResources()
}
