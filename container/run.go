package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/criserver/criserver/internal/dirwatch"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/oci/runtime"
	"github.com/fsnotify/fsnotify"
	"github.com/sirupsen/logrus"
)

// Run records the exits of containers from the exit records that monitors write, until
// ctx ends. Run also reaps the processes that the daemon has adopted.
func (m *Manager) Run(ctx context.Context) error {
	defer close(m.stopping)
	if err := os.MkdirAll(m.exitsDir(), 0o700); err != nil {
		return err
	}
	w := dirwatch.New(exitPoll, func(reason error) {
		logrus.WithError(reason).Warnf("inotify is not available for the exit records of containers: the daemon looks for them every %v; raise fs.inotify.max_user_instances", exitPoll)
	})
	defer w.Close()
	if err := w.Add(m.exitsDir()); err != nil {
		return fmt.Errorf("watch exit records: %w", err)
	}
	var wg sync.WaitGroup
	defer m.awaitNotifications()
	defer wg.Wait()
	wg.Go(func() { runtime.ReapOrphans(ctx) })
	wg.Go(m.scanExits) // records from before the watch
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev := <-w.Events():
			if ev.Has(fsnotify.Create) {
				wg.Go(func() { m.exitWritten(filepath.Base(ev.Name)) })
			}
		case <-w.Polls():
			if w.Resume() {
				if err := w.Add(m.exitsDir()); err != nil {
					return fmt.Errorf("watch exit records: %w", err)
				}
			}
			m.scanExits()
		case err := <-w.Errors():
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("watch exit records: %w", err)
			}
			wg.Go(m.scanExits)
		}
	}
}

// scanExits records the exits of all exit records.
func (m *Manager) scanExits() {
	entries, err := os.ReadDir(m.exitsDir())
	if err != nil {
		logrus.WithError(err).Error("list the exit records")
	}
	for _, e := range entries {
		m.exitWritten(e.Name())
	}
}

// exitWritten records the exit of a container after the monitor has written the exit record. id is the name of a file
// in the directory of the exit records.
func (m *Manager) exitWritten(id string) {
	if !ids.Valid(id) {
		return // a temporary file
	}
	m.mu.RLock()
	c := m.containers[id]
	m.mu.RUnlock()
	// A creation looks for the exit record itself when it ends.
	if c != nil && c.snap.Load() != nil {
		m.takeExit(c)
	}
}
