package exits

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/criserver/criserver/internal/dirwatch"
	"github.com/criserver/criserver/internal/ids"
	"github.com/fsnotify/fsnotify"
	"github.com/sirupsen/logrus"
)

// pollInterval is the interval in which a Watcher looks for exit records while inotify is not available.
const pollInterval = 500 * time.Millisecond

// Watcher reports new exit records.
type Watcher struct {
	dir Dir
	w   *dirwatch.Watcher
}

// Watch makes the directory and begins to watch it. The caller calls Run, and Close after Run.
func (d Dir) Watch() (*Watcher, error) {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return nil, err
	}
	w := dirwatch.New(pollInterval, func(reason error) {
		logrus.WithError(reason).Warnf("inotify is not available for the exit records of containers: the daemon looks for them every %v; raise fs.inotify.max_user_instances", pollInterval)
	})
	if err := w.Add(string(d)); err != nil {
		w.Close()
		return nil, fmt.Errorf("watch exit records: %w", err)
	}
	return &Watcher{d, w}, nil
}

// Close ends the watch.
func (w *Watcher) Close() { w.w.Close() }

// Run calls written with the id of each container that has an exit record now or gets one, until ctx ends. Several
// calls run at the same time, and an id can be reported more than once. When Run returns, no call is running.
func (w *Watcher) Run(ctx context.Context, written func(containerID string)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { w.scan(written) }) // records from before the watch
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev := <-w.w.Events():
			if ev.Has(fsnotify.Create) {
				wg.Go(func() { report(filepath.Base(ev.Name), written) })
			}
		case <-w.w.Polls():
			if w.w.Resume() {
				if err := w.w.Add(string(w.dir)); err != nil {
					return fmt.Errorf("watch exit records: %w", err)
				}
			}
			w.scan(written)
		case err := <-w.w.Errors():
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("watch exit records: %w", err)
			}
			wg.Go(func() { w.scan(written) })
		}
	}
}

// scan reports all exit records.
func (w *Watcher) scan(written func(string)) {
	entries, err := os.ReadDir(string(w.dir))
	if err != nil {
		logrus.WithError(err).Error("list the exit records")
	}
	for _, e := range entries {
		report(e.Name(), written)
	}
}

// report calls written if name is the name of an exit record. Other names are the names of temporary files.
func report(name string, written func(string)) {
	if ids.Valid(name) {
		written(name)
	}
}
