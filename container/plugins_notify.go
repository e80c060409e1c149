package container

import (
	"context"
	"time"
)

// notifyTimeout limits the notification of an exit, including the wait for the operation
// lock of the container.
const notifyTimeout = time.Minute

// notify calls event, a method of Plugins, if there are plugins.
func (m *Manager) notify(ctx context.Context, s *Snapshot, event func(Plugins, context.Context, *Snapshot)) {
	if m.cfg.Plugins != nil {
		event(m.cfg.Plugins, ctx, s)
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

// lastSnapshot returns the snapshot for the notification of a removal. If a plugin is
// connected, the snapshot contains the OCI config, whose file the removal deletes.
func (m *Manager) lastSnapshot(c *container) *Snapshot {
	s := c.snap.Load()
	if m.cfg.Plugins == nil || !m.cfg.Plugins.HasPlugins() {
		return s
	}
	spec, _ := s.Spec() // a container whose creation failed may have none
	return s.withSpec(spec)
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
// a stop can rely on the work of the plugins. If ctx ends first, awaitExitNotified returns, and
// the stop does not fail.
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
