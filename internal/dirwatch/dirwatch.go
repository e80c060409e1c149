// Package dirwatch reports changes in directories. It uses inotify. The kernel limits the inotify instances and
// watches of a user (fs.inotify.max_user_instances and max_user_watches), and other programs on a node use them too.
// When they are exhausted, the caller looks at the directories periodically, until inotify is available again.
package dirwatch

import (
	"errors"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// newInotify is replaced by tests.
var newInotify = fsnotify.NewWatcher

// Watcher watches directories. Only one goroutine may use it.
type Watcher struct {
	interval time.Duration
	warn     func(reason error)
	warned   bool
	inotify  *fsnotify.Watcher // nil while the caller polls
	ticker   *time.Ticker      // nil while inotify works
}

// New returns a watcher. If inotify is not available, the caller looks at the directories once per interval. The
// watcher calls warn with the reason when this happens for the first time.
func New(interval time.Duration, warn func(reason error)) *Watcher {
	w := &Watcher{interval: interval, warn: warn}
	var err error
	if w.inotify, err = newInotify(); err != nil {
		w.inotify = nil
		w.startPolling(err)
	}
	return w
}

// startPolling ends the use of inotify.
func (w *Watcher) startPolling(reason error) {
	if w.inotify != nil {
		_ = w.inotify.Close()
		w.inotify = nil
	}
	w.ticker = time.NewTicker(w.interval)
	if !w.warned {
		w.warn(reason)
		w.warned = true
	}
}

// Events returns the channel of the changes in the directories. The channel is nil while Polls is not.
func (w *Watcher) Events() <-chan fsnotify.Event {
	if w.inotify == nil {
		return nil
	}
	return w.inotify.Events
}

// Errors returns the channel of errors of inotify, such as fsnotify.ErrEventOverflow.
func (w *Watcher) Errors() <-chan error {
	if w.inotify == nil {
		return nil
	}
	return w.inotify.Errors
}

// Polls returns a channel that delivers the time once per interval while inotify is not available, and otherwise nil.
// The caller then calls Resume and looks at the directories.
func (w *Watcher) Polls() <-chan time.Time {
	if w.ticker == nil {
		return nil
	}
	return w.ticker.C
}

// Resume tries to use inotify again. If it returns true, the caller must add all directories before it looks at them.
func (w *Watcher) Resume() bool {
	inotify, err := newInotify()
	if err != nil {
		return false
	}
	w.ticker.Stop()
	w.inotify, w.ticker = inotify, nil
	return true
}

// Add watches a directory. If the kernel has no more watches for this user, the caller has to poll, and the error is
// nil. Otherwise the error is the error of inotify_add_watch(2), such as fs.ErrNotExist.
func (w *Watcher) Add(dir string) error {
	if w.inotify == nil {
		return nil
	}
	err := w.inotify.Add(dir)
	if errors.Is(err, unix.ENOSPC) {
		w.startPolling(err)
		return nil
	}
	return err
}

// Keep ends the watches of all directories that are not in dirs.
func (w *Watcher) Keep(dirs []string) {
	if w.inotify == nil {
		return
	}
	for _, dir := range w.inotify.WatchList() {
		if !slices.Contains(dirs, dir) {
			_ = w.inotify.Remove(dir) // fails if the directory was removed
		}
	}
}

// Close ends all watches.
func (w *Watcher) Close() {
	if w.inotify != nil {
		_ = w.inotify.Close()
	}
	if w.ticker != nil {
		w.ticker.Stop()
	}
}
