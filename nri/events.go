package nri

import (
	"context"
	"fmt"

	"github.com/containerd/nri/pkg/api"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RunPod sends an event when a pod is complete and the runtime does not list it yet. An error
// means that a plugin refused the pod. A call of Listed or the event of the removal must follow.
func (m *Manager) RunPod(ctx context.Context, p *api.PodSandbox) error {
	return m.send(ctx, api.Event_RUN_POD_SANDBOX, p, nil)
}

// Listed must be called when the runtime lists a new pod or container. It sends no event.
func (m *Manager) Listed(id string) { m.pending.remove(id) }

// UpdatePod sends an event before the limits of a pod are updated. An error means that a plugin
// refused the update.
func (m *Manager) UpdatePod(ctx context.Context, p *api.PodSandbox, overhead, resources *cri.LinuxContainerResources) error {
	return m.callPlugins(ctx, nil, func(ctx context.Context) error {
		_, err := m.nri.UpdatePodSandbox(ctx, &api.UpdatePodSandboxRequest{
			Pod: p, OverheadLinuxResources: Limits{CRI: overhead}.Message(), LinuxResources: Limits{CRI: resources}.Message(),
		})
		return err
	})
}

// CreateContainer sends an event before c is created from spec. Plugins may change spec. It
// returns nil if no plugin is connected. others are changes to other containers that precede the
// creation. An error means that a plugin refused the container or requested an invalid change;
// spec may then be changed in part. A call of Listed or the event of the removal must follow.
func (m *Manager) CreateContainer(ctx context.Context, p *api.PodSandbox, c *Container, spec *specs.Spec) (adjusted *Adjustment, others []Update, err error) {
	err = m.callPlugins(ctx, func() { m.pending.addContainer(c) }, func(ctx context.Context) error {
		request := &api.CreateContainerRequest{Pod: p, Container: c.messageWithSpec(spec)}
		answer, err := m.nri.CreateContainer(ctx, request)
		if err != nil {
			return err
		}
		restoreRemovals(spec, request.GetContainer(), answer.GetAdjust())
		if adjusted, err = applyAdjustment(spec, answer.GetAdjust()); err != nil {
			return err
		}
		others, err = parseUpdates(answer.GetUpdate())
		return err
	})
	return adjusted, others, err
}

// StartContainer sends an event before the start of a container. An error means that a plugin
// refused the start.
func (m *Manager) StartContainer(ctx context.Context, p *api.PodSandbox, c *Container) error {
	return m.send(ctx, api.Event_START_CONTAINER, p, c)
}

// UpdateContainer sends an event before the limits of c are updated. It returns the limits to
// set, which plugins may have changed, and updates of other containers. An error means that a
// plugin refused the update.
func (m *Manager) UpdateContainer(ctx context.Context, p *api.PodSandbox, c *Container, update *cri.LinuxContainerResources) (limits Limits, others []Update, err error) {
	limits = Limits{CRI: update}
	err = m.callPlugins(ctx, nil, func(ctx context.Context) error {
		message, err := c.message()
		if err != nil {
			return err
		}
		answer, err := m.nri.UpdateContainer(ctx, &api.UpdateContainerRequest{Pod: p, Container: message, LinuxResources: limits.Message()})
		if err != nil {
			return err
		}
		updates, err := parseUpdates(answer.GetUpdate())
		for _, u := range updates {
			if u.ContainerID == c.Status.GetId() {
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

// StopContainer sends an event after a container has exited for any reason. It returns
// the updates of other containers that plugins request.
func (m *Manager) StopContainer(ctx context.Context, p *api.PodSandbox, c *Container) (others []Update) {
	logError(ctx, p, c, m.callPlugins(ctx, nil, func(ctx context.Context) error {
		message, err := c.message()
		if err != nil {
			return err
		}
		answer, err := m.nri.StopContainer(ctx, &api.StopContainerRequest{Pod: p, Container: message})
		if err != nil {
			return err
		}
		others, err = parseUpdates(answer.GetUpdate())
		return err
	}))
	return others
}

// Notify sends an event that plugins cannot refuse, and that they answer without updates. c is nil
// if the event is about a pod. The event of a removal must also be sent if a creation has failed.
func (m *Manager) Notify(ctx context.Context, e api.Event, p *api.PodSandbox, c *Container) {
	logError(ctx, p, c, m.send(ctx, e, p, c))
}

// send sends an event whose only answer is an error.
func (m *Manager) send(ctx context.Context, e api.Event, p *api.PodSandbox, c *Container) error {
	return m.callPlugins(ctx, func() { m.recordPending(e, p, c) }, func(ctx context.Context) error {
		message, err := c.message()
		if err != nil {
			return err
		}
		switch e {
		case api.Event_RUN_POD_SANDBOX:
			return m.nri.RunPodSandbox(ctx, &api.RunPodSandboxRequest{Pod: p})
		case api.Event_POST_UPDATE_POD_SANDBOX:
			return m.nri.PostUpdatePodSandbox(ctx, &api.PostUpdatePodSandboxRequest{Pod: p})
		case api.Event_STOP_POD_SANDBOX:
			return m.nri.StopPodSandbox(ctx, &api.StopPodSandboxRequest{Pod: p})
		case api.Event_REMOVE_POD_SANDBOX:
			return m.nri.RemovePodSandbox(ctx, &api.RemovePodSandboxRequest{Pod: p})
		case api.Event_POST_CREATE_CONTAINER:
			return m.nri.PostCreateContainer(ctx, &api.PostCreateContainerRequest{Pod: p, Container: message})
		case api.Event_START_CONTAINER:
			return m.nri.StartContainer(ctx, &api.StartContainerRequest{Pod: p, Container: message})
		case api.Event_POST_START_CONTAINER:
			return m.nri.PostStartContainer(ctx, &api.PostStartContainerRequest{Pod: p, Container: message})
		case api.Event_POST_UPDATE_CONTAINER:
			return m.nri.PostUpdateContainer(ctx, &api.PostUpdateContainerRequest{Pod: p, Container: message})
		case api.Event_REMOVE_CONTAINER:
			return m.nri.RemoveContainer(ctx, &api.RemoveContainerRequest{Pod: p, Container: message})
		}
		return fmt.Errorf("event %v cannot be sent without an answer", e)
	})
}

// recordPending updates the pending objects for an event.
func (m *Manager) recordPending(e api.Event, p *api.PodSandbox, c *Container) {
	switch e {
	case api.Event_RUN_POD_SANDBOX:
		m.pending.addPod(p)
	case api.Event_REMOVE_POD_SANDBOX, api.Event_REMOVE_CONTAINER:
		m.pending.remove(objectID(p, c))
	}
}

// objectID returns the ID of the pod or container that an event is about.
func objectID(p *api.PodSandbox, c *Container) string {
	if c != nil {
		return c.Status.GetId()
	}
	return p.GetId()
}

// logError logs the error of an event that plugins cannot refuse.
func logError(ctx context.Context, p *api.PodSandbox, c *Container, err error) {
	if err != nil {
		logOf(ctx).WithField("id", objectID(p, c)).WithError(err).Warn("a plugin failed to handle an event that it cannot refuse")
	}
}
