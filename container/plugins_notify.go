package container

import (
	"context"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// notifyTimeout limits the notification of an exit, including the wait for the operation
// lock of the container.
const notifyTimeout = time.Minute

func (m *Manager) notifyCreated(ctx context.Context, c *container) {
	c.pluginConfig = nil
	if m.cfg.Plugins != nil {
		m.cfg.Plugins.Created(ctx, c.snap.Load())
	}
}

// notifyUndone notifies plugins of the rollback of a creation, if they were asked about
// the creation.
func (m *Manager) notifyUndone(ctx context.Context, c *container, s *Snapshot) {
	if m.cfg.Plugins != nil && c.pluginsAsked {
		m.cfg.Plugins.Removed(ctx, s, c.pluginConfig)
	}
}

// approveStart asks plugins about a start. If they refuse the start, the container exits
// in the same way as after a refusal by the runtime.
func (m *Manager) approveStart(ctx context.Context, c *container) error {
	if m.cfg.Plugins == nil {
		return nil
	}
	err := m.cfg.Plugins.Start(ctx, c.snap.Load())
	if err != nil && ctx.Err() == nil {
		m.failStart(c, err)
	}
	return err
}

func (m *Manager) notifyStarted(ctx context.Context, c *container) {
	if m.cfg.Plugins != nil {
		m.cfg.Plugins.Started(ctx, c.snap.Load())
	}
}

// adjustUpdate lets plugins change the limits of an update.
func (m *Manager) adjustUpdate(ctx context.Context, s *Snapshot, r *cri.LinuxContainerResources) (Limits, func(context.Context), error) {
	if m.cfg.Plugins == nil {
		return Limits{CRI: r}, nil, nil
	}
	return m.cfg.Plugins.Update(ctx, s, Limits{CRI: r})
}

func (m *Manager) notifyUpdated(ctx context.Context, c *container) {
	if m.cfg.Plugins != nil {
		m.cfg.Plugins.Updated(ctx, c.snap.Load())
	}
}

// prepareRemovedNotification reads the OCI config, which the removal deletes. The result
// notifies plugins after the removal.
func (m *Manager) prepareRemovedNotification(c *container) (notify func(context.Context)) {
	if m.cfg.Plugins == nil {
		return func(context.Context) {}
	}
	s := c.snap.Load()
	var spec *specs.Spec
	if m.cfg.Plugins.Any() {
		spec, _ = s.Spec() // a container whose creation failed may have none
	}
	return func(ctx context.Context) { m.cfg.Plugins.Removed(ctx, s, spec) }
}

// notifyExit notifies plugins of the exit of a container, once, in the background.
func (m *Manager) notifyExit(c *container) {
	if m.cfg.Plugins == nil {
		c.markExitNotified()
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed { // plugins synchronize with the next daemon when it starts
		c.markExitNotified()
		return
	}
	m.notifications.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), notifyTimeout)
		defer cancel()
		unlock, err := m.ops.Lock(ctx, c.id)
		if err != nil {
			c.log().WithError(err).Warn("plugins are not notified of the exit of the container: another operation of the container is running")
			return
		}
		otherUpdates := m.notifyExitLocked(ctx, c)
		unlock()
		otherUpdates(ctx)
	})
}

// notifyExitLocked notifies plugins. The caller holds the operation lock, and calls
// otherUpdates without the lock.
func (m *Manager) notifyExitLocked(ctx context.Context, c *container) (otherUpdates func(context.Context)) {
	otherUpdates = func(context.Context) {}
	if c.isExitNotified() || m.cfg.Plugins == nil || !m.isRegistered(c) {
		c.markExitNotified()
		return otherUpdates
	}
	defer c.markExitNotified()
	if do := m.cfg.Plugins.Stopped(ctx, c.snap.Load()); do != nil {
		otherUpdates = do
	}
	return otherUpdates
}

// awaitNotifications waits for the running notifications. No notification begins after
// the call.
func (m *Manager) awaitNotifications() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.notifications.Wait()
}

// awaitExitNotified waits until plugins are notified of the exit, because the caller of
// a stop can rely on what the plugins do then. It does not wait longer than ctx, which
// is no failure of the stop.
func (c *container) awaitExitNotified(ctx context.Context) {
	select {
	case <-c.exitNotified:
	case <-ctx.Done():
	}
}

func (c *container) markExitNotified() { c.exitNotifiedOnce.Do(func() { close(c.exitNotified) }) }

func (c *container) isExitNotified() bool {
	select {
	case <-c.exitNotified:
		return true
	default:
		return false
	}
}
