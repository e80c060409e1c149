package nri

import (
	"context"
	"fmt"

	"github.com/containerd/nri/pkg/adaptation"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RunPod sends an event when a pod is complete and the runtime does not list it yet. An error
// means that a plugin refused the pod. PodListed or RemovePod must follow.
func (m *Manager) RunPod(ctx context.Context, p Pod) error {
	return m.callPlugins(ctx, func() { m.pending.addPod(p) }, func(ctx context.Context) error {
		return m.nri.RunPodSandbox(ctx, &adaptation.RunPodSandboxRequest{Pod: podMessage(p)})
	})
}

// PodListed must be called when the runtime lists the pod. It sends no event.
func (m *Manager) PodListed(id string) { m.pending.remove(id) }

// UpdatePod sends an event before the limits of a pod are updated. An error means that a plugin
// refused the update.
func (m *Manager) UpdatePod(ctx context.Context, p Pod, overhead, resources *cri.LinuxContainerResources) error {
	return m.callPlugins(ctx, nil, func(ctx context.Context) error {
		_, err := m.nri.UpdatePodSandbox(ctx, &adaptation.UpdatePodSandboxRequest{
			Pod: podMessage(p), OverheadLinuxResources: limitsMessage(Limits{CRI: overhead}), LinuxResources: limitsMessage(Limits{CRI: resources}),
		})
		return err
	})
}

// PodUpdated sends an event after the limits of a pod were updated.
func (m *Manager) PodUpdated(ctx context.Context, p Pod) {
	m.logError(ctx, p.ID, m.callPlugins(ctx, nil, func(ctx context.Context) error {
		return m.nri.PostUpdatePodSandbox(ctx, &adaptation.PostUpdatePodSandboxRequest{Pod: podMessage(p)})
	}))
}

// StopPod sends an event after the containers of a pod have exited. The pod still has its
// namespaces and its network.
func (m *Manager) StopPod(ctx context.Context, p Pod) {
	m.logError(ctx, p.ID, m.callPlugins(ctx, nil, func(ctx context.Context) error {
		return m.nri.StopPodSandbox(ctx, &adaptation.StopPodSandboxRequest{Pod: podMessage(p)})
	}))
}

// RemovePod sends an event after a pod was removed, or its creation has failed.
func (m *Manager) RemovePod(ctx context.Context, p Pod) {
	m.logError(ctx, p.ID, m.callPlugins(ctx, func() { m.pending.remove(p.ID) }, func(ctx context.Context) error {
		return m.nri.RemovePodSandbox(ctx, &adaptation.RemovePodSandboxRequest{Pod: podMessage(p)})
	}))
}

// CreateContainer sends an event before c is created from spec. Plugins may change spec. An
// error means that a plugin refused the container or requested an invalid change; spec may
// then be changed in part. ContainerCreated or RemoveContainer must follow.
func (m *Manager) CreateContainer(ctx context.Context, p Pod, c Container, spec *specs.Spec) (Adjustment, error) {
	var adjusted Adjustment
	err := m.callPlugins(ctx, func() { m.pending.addContainer(c) }, func(ctx context.Context) error {
		request := &adaptation.CreateContainerRequest{Pod: podMessage(p), Container: containerMessage(c, spec)}
		answer, err := m.nri.CreateContainer(ctx, request)
		if err != nil {
			return err
		}
		restoreRemovals(spec, request.GetContainer(), answer.GetAdjust())
		if adjusted, err = applyAdjustment(spec, answer.GetAdjust()); err != nil {
			return err
		}
		adjusted.Consulted = true
		adjusted.OtherUpdates, err = parseUpdates(answer.GetUpdate())
		return err
	})
	if err != nil {
		return Adjustment{}, err
	}
	return adjusted, nil
}

// ContainerCreated sends an event after the container was created. The runtime must already
// list the container.
func (m *Manager) ContainerCreated(ctx context.Context, p Pod, c Container) {
	m.pending.remove(c.ID)
	m.notify(ctx, p, c, nil, func(ctx context.Context, e containerEvent) error {
		return m.nri.PostCreateContainer(ctx, &adaptation.PostCreateContainerRequest{Pod: e.pod, Container: e.container})
	})
}

// StartContainer sends an event before the start of a container. An error means that a plugin
// refused the start.
func (m *Manager) StartContainer(ctx context.Context, p Pod, c Container) error {
	return m.send(ctx, p, c, nil, func(ctx context.Context, e containerEvent) error {
		return m.nri.StartContainer(ctx, &adaptation.StartContainerRequest{Pod: e.pod, Container: e.container})
	})
}

// ContainerStarted sends an event after the start of a container.
func (m *Manager) ContainerStarted(ctx context.Context, p Pod, c Container) {
	m.notify(ctx, p, c, nil, func(ctx context.Context, e containerEvent) error {
		return m.nri.PostStartContainer(ctx, &adaptation.PostStartContainerRequest{Pod: e.pod, Container: e.container})
	})
}

// UpdateContainer sends an event before the limits of c are updated. It returns the limits to
// set, which plugins may have changed, and updates of other containers. An error means that a
// plugin refused the update.
func (m *Manager) UpdateContainer(ctx context.Context, p Pod, c Container, update *cri.LinuxContainerResources) (limits Limits, others []Update, err error) {
	limits = Limits{CRI: update}
	err = m.send(ctx, p, c, nil, func(ctx context.Context, e containerEvent) error {
		answer, err := m.nri.UpdateContainer(ctx, &adaptation.UpdateContainerRequest{
			Pod: e.pod, Container: e.container, LinuxResources: limitsMessage(Limits{CRI: update}),
		})
		if err != nil {
			return err
		}
		updates, err := parseUpdates(answer.GetUpdate())
		for _, u := range updates {
			if u.ContainerID == c.ID {
				u.Limits.CRI.OomScoreAdj = update.GetOomScoreAdj() // the protocol has no such field here
				limits = u.Limits
			} else {
				others = append(others, u)
			}
		}
		return err
	})
	return limits, others, err
}

// ContainerUpdated sends an event after the limits of a container were updated.
func (m *Manager) ContainerUpdated(ctx context.Context, p Pod, c Container) {
	m.notify(ctx, p, c, nil, func(ctx context.Context, e containerEvent) error {
		return m.nri.PostUpdateContainer(ctx, &adaptation.PostUpdateContainerRequest{Pod: e.pod, Container: e.container})
	})
}

// StopContainer sends an event after a container has exited, whatever the reason. It returns
// the updates of other containers that plugins request.
func (m *Manager) StopContainer(ctx context.Context, p Pod, c Container) (others []Update) {
	m.notify(ctx, p, c, nil, func(ctx context.Context, e containerEvent) error {
		answer, err := m.nri.StopContainer(ctx, &adaptation.StopContainerRequest{Pod: e.pod, Container: e.container})
		if err != nil {
			return err
		}
		others, err = parseUpdates(answer.GetUpdate())
		return err
	})
	return others
}

// RemoveContainer sends an event after a container was removed, or its creation has failed.
func (m *Manager) RemoveContainer(ctx context.Context, p Pod, c Container) {
	m.notify(ctx, p, c, func() { m.pending.remove(c.ID) }, func(ctx context.Context, e containerEvent) error {
		return m.nri.RemoveContainer(ctx, &adaptation.RemoveContainerRequest{Pod: e.pod, Container: e.container})
	})
}

// notify sends an event that plugins cannot refuse.
func (m *Manager) notify(ctx context.Context, p Pod, c Container, record func(), send func(context.Context, containerEvent) error) {
	m.logError(ctx, c.ID, m.send(ctx, p, c, record, send))
}

func (m *Manager) send(ctx context.Context, p Pod, c Container, record func(), send func(context.Context, containerEvent) error) error {
	return m.callPlugins(ctx, record, func(ctx context.Context) error {
		e, err := newContainerEvent(p, c)
		if err != nil {
			return fmt.Errorf("container %q: %w", c.ID, err)
		}
		return send(ctx, e)
	})
}
