package network

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
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
	// statusTimeout bounds the answers of all plugins to STATUS. After a missed
	// deadline the plugins are asked again with more time.
	statusTimeout = time.Minute
	// longest bounds the deadlines that grow after each missed one.
	longest = 8 * time.Minute
)

// Run keeps the configuration as the files in the directories say, keeps the tables
// of nftables, asks the plugins for their status, and collects the remains of
// attachments, until ctx ends.
func (n *Network) Run(ctx context.Context) error {
	n.recallTables(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.watch(ctx) })
	g.Go(func() error { n.keepTables(ctx); return nil })
	return g.Wait()
}

// watch makes rounds of checks until ctx ends.
func (n *Network) watch(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch CNI configuration: %w", err)
	}
	defer w.Close()
	timer := time.NewTimer(0) // the first round comes at once
	defer timer.Stop()
	r := rounds{n: n, watcher: w, dirty: true, collection: collection{wanted: true}}
	defer r.inquiry.stop()
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
		case a := <-r.inquiry.answers:
			r.answered(ctx, a)
		case <-timer.C:
		}
		timer.Reset(time.Until(r.next(ctx)))
	}
}

// rounds is what Run remembers between two rounds of checks.
type rounds struct {
	n              *Network
	watcher        *fsnotify.Watcher
	watched, dirty bool      // all directories are watched; files may have changed
	reloadAt       time.Time // not before
	late           int       // calls of Reload in a row that missed their deadline

	ready    bool // the last answer of the plugins to STATUS
	inquiry  inquiry
	statusAt time.Time
	missed   int // inquiries in a row that missed their deadline

	collection collection
}

// next does what is due and returns when something is due again.
func (r *rounds) next(ctx context.Context) time.Time {
	if !r.watched {
		r.watched, r.dirty = r.n.watchDirs(r.watcher), true
	}
	if r.dirty && !r.reloadAt.After(time.Now()) {
		r.reload(ctx)
	}
	if !r.statusAt.After(time.Now()) && !r.inquiry.running() {
		r.ask(ctx)
	}
	at := time.Now().Add(statusEvery)
	if !r.inquiry.running() {
		at = earlier(at, r.statusAt)
	}
	if r.ready {
		at = earlier(at, r.collection.next(ctx, r.n.collect))
	}
	if !r.watched {
		at = earlier(at, time.Now().Add(recheck))
	}
	if r.dirty {
		at = earlier(at, r.reloadAt)
	}
	return at
}

// reload reads the files. After a missed deadline it is called again, with more
// time.
func (r *rounds) reload(ctx context.Context) {
	within := longer(nftTimeout, r.late)
	changed, err := r.n.Reload(ctx, within)
	if r.dirty = err != nil; err != nil {
		r.late++
		r.reloadAt = time.Now().Add(recheck)
		r.n.loaded.Load().settle()
		if ctx.Err() == nil {
			logrus.WithContext(ctx).WithError(err).Warn("network configuration is not loaded yet; the daemon tries again with more time")
		}
		return
	}
	r.late = 0
	if l := r.n.loaded.Load(); l.err != nil {
		l.settle()
	}
	if changed {
		r.inquiry.stop()
		r.ready, r.missed, r.statusAt = false, 0, time.Now()
		r.collection.want()
	}
}

// longer returns a deadline that was missed a number of times, doubled as often.
func longer(d time.Duration, missed int) time.Duration {
	for ; missed > 0 && d < longest; missed-- {
		d *= 2
	}
	return min(d, longest)
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
