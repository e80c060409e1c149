package container

import (
	"context"
	"sync"

	"github.com/criserver/criserver/oci/runtime"
)

// Run records the exits of containers from the exit records that monitors write, until
// ctx ends. Run also reaps the processes that the daemon has adopted.
func (m *Manager) Run(ctx context.Context) error {
	defer close(m.stopping)
	w, err := m.exits.Watch()
	if err != nil {
		return err
	}
	defer w.Close()
	var wg sync.WaitGroup
	defer m.awaitNotifications()
	defer wg.Wait()
	wg.Go(func() { runtime.ReapOrphans(ctx) })
	return w.Run(ctx, m.exitWritten)
}

// exitWritten records the exit of a container after the monitor has written the exit record.
func (m *Manager) exitWritten(id string) {
	m.mu.RLock()
	c := m.containers[id]
	m.mu.RUnlock()
	// A creation looks for the exit record itself when it ends.
	if c != nil && c.snap.Load() != nil {
		m.takeExit(c)
	}
}
