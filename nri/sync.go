package nri

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
)

// updateTimeout is how long a change of a container's limits may wait for the
// container, where no plugin waits for the answer.
const updateTimeout = time.Minute

// synchronize shows a plugin that connected all there is. No event is relayed
// meanwhile, which is why what the plugin wants changed is done afterwards: an
// event may hold the container that it wants to change.
func (m *Manager) synchronize(ctx context.Context, plugin adaptation.SyncCB) error {
	pods, containers := m.inventory()
	updates, err := plugin(ctx, podMessages(pods), containerMessages(ctx, containers))
	if err != nil {
		return err
	}
	if len(updates) == 0 {
		return nil
	}
	select {
	case m.synced <- updates:
		return nil
	default:
		return fmt.Errorf("more than %d plugins wait for what they want changed: %w", syncedBacklog, errdefs.ErrResourceExhausted)
	}
}

// inventory is all there is. What is in the making is looked at first: it
// leaves there only once the runtime shows it. Pods are looked at last, so that
// none is missing of which there is a container.
func (m *Manager) inventory() ([]Pod, []Container) {
	madePods, madeContainers := m.making.all()
	containers := m.cfg.Runtime.Containers()
	pods := m.cfg.Runtime.Pods()
	for _, c := range containers {
		delete(madeContainers, c.ID)
	}
	for _, p := range pods {
		delete(madePods, p.ID)
	}
	return slices.AppendSeq(pods, maps.Values(madePods)), slices.AppendSeq(containers, maps.Values(madeContainers))
}

// unsolicited is for what a plugin wants out of itself. The answer lists what
// failed.
func (m *Manager) unsolicited(ctx context.Context, updates []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) {
	// The plugin may be in the middle of an answer about this very container, and
	// is to hear in time that it cannot be changed just now.
	return m.updateAll(ctx, updates, m.cfg.RequestTimeout/2), nil
}

// updateAll returns the updates that failed and should not have. patience is how
// long each may wait for its container.
func (m *Manager) updateAll(ctx context.Context, updates []*api.ContainerUpdate, patience time.Duration) []*api.ContainerUpdate {
	var failed []*api.ContainerUpdate
	for _, u := range updates {
		if u == nil {
			continue
		}
		if err := m.update(ctx, u, patience); err != nil && !u.GetIgnoreFailure() {
			logOf(ctx).WithField("container", u.GetContainerId()).WithError(err).Warn("limits that a plugin wants cannot be set")
			failed = append(failed, u)
		}
	}
	return failed
}

func (m *Manager) update(ctx context.Context, message *api.ContainerUpdate, patience time.Duration) error {
	u, err := updateOf(message)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return m.cfg.Runtime.Update(ctx, u)
}

// Others makes the changes that plugins asked for in their answer about another
// container. One that has gone or ended meanwhile needs no limits.
func (m *Manager) Others(ctx context.Context, updates []Update) error {
	for _, u := range updates {
		ctx, cancel := context.WithTimeout(ctx, updateTimeout)
		err := m.cfg.Runtime.Update(ctx, u)
		cancel()
		if err == nil || errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) {
			continue
		}
		if !u.Optional {
			return err
		}
		logOf(ctx).WithField("container", u.ContainerID).WithError(err).Info("limits that a plugin wants cannot be set; it does not insist")
	}
	return nil
}
