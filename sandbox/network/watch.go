package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/fsnotify/fsnotify"
	"github.com/sirupsen/logrus"
)

const (
	// debounce is the silence after which changed files are read: installers
	// write several, and not in one step.
	debounce = 200 * time.Millisecond
	// recheck is how often plugins that say they cannot work, or directories
	// that cannot be watched, are tried again.
	recheck = 5 * time.Second
	// statusEvery is how often plugins that work are asked for their status.
	statusEvery = time.Minute
	// statusTimeout bounds one round of such questions.
	statusTimeout = 10 * time.Second
)

// Run keeps the configuration as the files in the directories say, asks the
// plugins for their status, and collects what is left of attachments, until ctx
// ends.
func (n *Network) Run(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch CNI configuration: %w", err)
	}
	defer w.Close()
	timer := time.NewTimer(0) // the first round comes at once
	defer timer.Stop()
	r := rounds{n: n, watcher: w, dirty: true, collection: collection{wanted: true}}
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev := <-w.Events:
			if ev.Has(fsnotify.Chmod) && !ev.Has(fsnotify.Write) {
				continue
			}
			// When a directory itself goes, so does its watch.
			r.watched = r.watched && !(ev.Has(fsnotify.Remove) || ev.Has(fsnotify.Rename)) || !n.isDir(ev.Name)
			r.dirty = true
			timer.Reset(debounce)
			continue
		case err := <-w.Errors: // an overflow: events are lost
			logrus.WithContext(ctx).WithError(err).Warn("watch of the CNI configuration")
			r.dirty = true
		case <-n.suspect:
			r.collection.want()
		case <-timer.C:
		}
		timer.Reset(time.Until(r.next(ctx)))
	}
}

// rounds is what Run knows from one look at things to the next.
type rounds struct {
	n              *Network
	watcher        *fsnotify.Watcher
	watched, dirty bool // all directories are watched; files may have changed
	ready          bool // what the plugins last answered to STATUS
	portsSeen      bool // the tables of host ports were put right once
	statusAt       time.Time
	collection     collection
}

// next does what is due and returns when something is again.
func (r *rounds) next(ctx context.Context) time.Time {
	now := time.Now()
	if !r.watched {
		r.watched, r.dirty = r.n.watchDirs(r.watcher), true
	}
	if r.dirty && r.n.Reload(ctx) {
		r.statusAt = now // a new one has not been asked
		r.collection.want()
	}
	r.dirty = false
	if !r.statusAt.After(now) {
		r.n.ports.ensure(ctx, !r.portsSeen)
		r.portsSeen = true
		r.ready = r.n.askStatus(ctx)
		r.statusAt = time.Now().Add(recheck)
		if r.ready {
			r.statusAt = time.Now().Add(statusEvery)
		}
	}
	at := r.statusAt
	if r.ready {
		at = earlier(at, r.collection.next(ctx, r.n.collect))
	}
	if !r.watched {
		at = earlier(at, time.Now().Add(recheck))
	}
	return at
}

func earlier(a, b time.Time) time.Time {
	if b.IsZero() || a.Before(b) {
		return a
	}
	return b
}

func (n *Network) isDir(path string) bool {
	for _, dir := range n.cfg.ConfDirs {
		if dir == path {
			return true
		}
	}
	return false
}

// watchDirs watches all directories, making those that are missing, as others
// expect to find them. It says whether all are watched.
func (n *Network) watchDirs(w *fsnotify.Watcher) bool {
	all := true
	for _, dir := range n.cfg.ConfDirs {
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			err = w.Add(dir)
		}
		all = all && err == nil
	}
	return all
}

// askStatus asks the plugins whether they can attach pods, where the version of
// the configuration knows that question.
func (n *Network) askStatus(ctx context.Context) bool {
	l := n.loaded.Load()
	if l.err != nil || n.findPlugins(l.list) != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	for _, l := range l.all() {
		if l.masquerade != nil {
			l.masquerade.ensure(ctx)
		}
	}
	err := n.cni.GetStatusNetworkList(ctx, l.list.conf)
	if err == nil || errors.Is(ctx.Err(), context.Canceled) {
		n.status.Store(nil)
		return true
	}
	err = fmt.Errorf("CNI network %q says that it is not ready (code %d): %w: %w", l.list.conf.Name, code(err), err, errdefs.ErrUnavailable)
	n.status.Store(&err)
	return false
}
