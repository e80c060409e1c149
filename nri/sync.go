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

// updateTimeout limits an update of a container's limits, including the wait for the container,
// if no plugin waits for the result.
const updateTimeout = time.Minute

// synchronize sends all pods and containers to a plugin that has connected. No event is sent
// at the same time. Run applies the updates that the plugin returns, because an event that
// waits for the end of the synchronization may hold the lock of a container to update.
func (m *Manager) synchronize(ctx context.Context, plugin adaptation.SyncCB) error {
	pods, containers := m.inventory()
	updates, err := plugin(ctx, pods, containerMessages(ctx, containers))
	if err != nil {
		return err
	}
	if len(updates) == 0 {
		return nil
	}
	select {
	case m.syncUpdates <- updates:
		return nil
	default:
		return fmt.Errorf("the updates of more than %d plugins are pending: %w", syncUpdatesBacklog, errdefs.ErrResourceExhausted)
	}
}

// inventory returns all pods and containers. It lists the pending objects first, because they
// cease to be pending only after the runtime lists them. It lists pods after containers, so
// that the pod of each container is included.
func (m *Manager) inventory() ([]*api.PodSandbox, []*Container) {
	pendingPods, pendingContainers := m.pending.list()
	containers := m.cfg.Runtime.Containers()
	pods := m.cfg.Runtime.Pods()
	for _, c := range containers {
		delete(pendingContainers, c.Status.GetId())
	}
	for _, p := range pods {
		delete(pendingPods, p.GetId())
	}
	return slices.AppendSeq(pods, maps.Values(pendingPods)), slices.AppendSeq(containers, maps.Values(pendingContainers))
}

// handleUnsolicitedUpdates applies updates that a plugin sends on its own initiative. It
// returns the updates that failed.
func (m *Manager) handleUnsolicitedUpdates(ctx context.Context, updates []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) {
	// If the plugin is answering an event about the same container, the lock of the
	// container is not available. The plugin must get the failure before its own answer
	// times out.
	return m.applyUpdates(ctx, updates, m.cfg.RequestTimeout/2), nil
}

// applyUpdates applies each update within the timeout. It returns the updates that failed,
// except those whose failure the plugin ignores.
func (m *Manager) applyUpdates(ctx context.Context, updates []*api.ContainerUpdate, timeout time.Duration) []*api.ContainerUpdate {
	var failed []*api.ContainerUpdate
	for _, u := range updates {
		if u == nil {
			continue
		}
		if err := m.applyUpdate(ctx, u, timeout); err != nil && !u.GetIgnoreFailure() {
			logOf(ctx).WithField("container", u.GetContainerId()).WithError(err).Warn("set limits that a plugin requests")
			failed = append(failed, u)
		}
	}
	return failed
}

func (m *Manager) applyUpdate(ctx context.Context, message *api.ContainerUpdate, timeout time.Duration) error {
	u, err := parseUpdate(message)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return m.cfg.Runtime.Update(ctx, u)
}

// UpdateOthers applies the updates that plugins requested in answers about another container.
// Containers that do not exist or have exited need no limits, so they cause no error.
func (m *Manager) UpdateOthers(ctx context.Context, updates []Update) error {
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
		logOf(ctx).WithField("container", u.ContainerID).WithError(err).Info("set optional limits that a plugin requests")
	}
	return nil
}
