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
	return m.recordExits(ctx, w.Run)
}

// recordExits records the exits that watch reports, and reaps processes, until watch returns.
func (m *Manager) recordExits(ctx context.Context, watch func(ctx context.Context, written func(id string)) error) error {
	var wg sync.WaitGroup
	defer m.awaitNotifications()
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // otherwise a failed watch would not end the daemon
	wg.Go(func() { runtime.ReapOrphans(ctx) })
	return watch(ctx, m.exitWritten)
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
