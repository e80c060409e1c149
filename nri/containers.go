package nri

import (
	"context"
	"fmt"

	"github.com/containerd/nri/pkg/adaptation"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CreateContainer lets plugins change spec, the config that c is about to be
// made from. An error is a plugin's refusal, or names what it wants and cannot
// have; spec is of no use then. Settled or RemoveContainer must follow.
func (m *Manager) CreateContainer(ctx context.Context, p Pod, c Container, spec *specs.Spec) (Adjustment, error) {
	var adjusted Adjustment
	err := m.relay(ctx, func() { m.making.addContainer(c) }, func(ctx context.Context) error {
		request := &adaptation.CreateContainerRequest{Pod: podMessage(p), Container: containerMessage(c, spec)}
		answer, err := m.nri.CreateContainer(ctx, request)
		if err != nil {
			return err
		}
		addRemovals(spec, request.GetContainer(), answer.GetAdjust())
		if adjusted, err = adjust(spec, answer.GetAdjust()); err != nil {
			return err
		}
		adjusted.Asked = true
		adjusted.Others, err = updatesOf(answer.GetUpdate())
		return err
	})
	if err != nil {
		return Adjustment{}, err
	}
	return adjusted, nil
}

// ContainerCreated comes after the container was made and is shown.
func (m *Manager) ContainerCreated(ctx context.Context, p Pod, c Container) {
	m.making.done(c.ID)
	m.event(ctx, p, c, nil, func(ctx context.Context, e event) error {
		return m.nri.PostCreateContainer(ctx, &adaptation.PostCreateContainerRequest{Pod: e.pod, Container: e.container})
	})
}

// StartContainer comes before the start. An error is a plugin's refusal.
func (m *Manager) StartContainer(ctx context.Context, p Pod, c Container) error {
	return m.relayed(ctx, p, c, nil, func(ctx context.Context, e event) error {
		return m.nri.StartContainer(ctx, &adaptation.StartContainerRequest{Pod: e.pod, Container: e.container})
	})
}

// ContainerStarted comes after it.
func (m *Manager) ContainerStarted(ctx context.Context, p Pod, c Container) {
	m.event(ctx, p, c, nil, func(ctx context.Context, e event) error {
		return m.nri.PostStartContainer(ctx, &adaptation.PostStartContainerRequest{Pod: e.pod, Container: e.container})
	})
}

// UpdateContainer comes before the limits of c are changed by limits. It returns
// what is to be set instead, and what for others. An error is a plugin's refusal.
func (m *Manager) UpdateContainer(ctx context.Context, p Pod, c Container, limits *cri.LinuxContainerResources) (own Update, others []Update, err error) {
	own = Update{ContainerID: c.ID, Limits: limits}
	err = m.relayed(ctx, p, c, nil, func(ctx context.Context, e event) error {
		answer, err := m.nri.UpdateContainer(ctx, &adaptation.UpdateContainerRequest{
			Pod: e.pod, Container: e.container, LinuxResources: limitsMessage(limits, nil),
		})
		if err != nil {
			return err
		}
		updates, err := updatesOf(answer.GetUpdate())
		for _, u := range updates {
			if u.ContainerID == c.ID {
				u.Limits.OomScoreAdj = limits.GetOomScoreAdj() // plugins have no word for it here
				own = u
			} else {
				others = append(others, u)
			}
		}
		return err
	})
	return own, others, err
}

// ContainerUpdated comes after it.
func (m *Manager) ContainerUpdated(ctx context.Context, p Pod, c Container) {
	m.event(ctx, p, c, nil, func(ctx context.Context, e event) error {
		return m.nri.PostUpdateContainer(ctx, &adaptation.PostUpdateContainerRequest{Pod: e.pod, Container: e.container})
	})
}

// StopContainer comes when the container has ended, by itself or not. It
// returns what plugins want changed for others now.
func (m *Manager) StopContainer(ctx context.Context, p Pod, c Container) (others []Update) {
	m.event(ctx, p, c, nil, func(ctx context.Context, e event) error {
		answer, err := m.nri.StopContainer(ctx, &adaptation.StopContainerRequest{Pod: e.pod, Container: e.container})
		if err != nil {
			return err
		}
		others, err = updatesOf(answer.GetUpdate())
		return err
	})
	return others
}

// RemoveContainer is for a container that has gone, also one that could not be
// made.
func (m *Manager) RemoveContainer(ctx context.Context, p Pod, c Container) {
	m.event(ctx, p, c, func() { m.making.done(c.ID) }, func(ctx context.Context, e event) error {
		return m.nri.RemoveContainer(ctx, &adaptation.RemoveContainerRequest{Pod: e.pod, Container: e.container})
	})
}

// event tells of what cannot be refused.
func (m *Manager) event(ctx context.Context, p Pod, c Container, note func(), tell func(context.Context, event) error) {
	m.quietly(ctx, c.ID, m.relayed(ctx, p, c, note, tell))
}

func (m *Manager) relayed(ctx context.Context, p Pod, c Container, note func(), tell func(context.Context, event) error) error {
	return m.relay(ctx, note, func(ctx context.Context) error {
		e, err := newEvent(p, c)
		if err != nil {
			return fmt.Errorf("container %q: %w", c.ID, err)
		}
		return tell(ctx, e)
	})
}
