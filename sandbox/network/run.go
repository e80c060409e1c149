package network

import (
	"context"
	"os"
	"slices"
	"time"

	"github.com/criserver/criserver/internal/dirwatch"
	"github.com/criserver/criserver/sandbox/network/bridge"
	"github.com/criserver/criserver/sandbox/network/nat"
	"github.com/fsnotify/fsnotify"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
)

const (
	// debounce is the time without changes after which changed files are read: installers write several files in
	// several steps.
	debounce = 200 * time.Millisecond
	// retryInterval is the time until the next attempt if plugins are not ready or a directory cannot be watched.
	retryInterval = 5 * time.Second
	// checkInterval is the time between two checks of ready plugins and of tables.
	checkInterval = time.Minute
	// maxTimeout bounds the timeouts that double after each timeout.
	maxTimeout = 8 * time.Minute
)

// Run loads the configuration whenever the files change, keeps the nftables tables, asks the plugins for their status,
// and runs GC, until ctx ends.
func (n *Network) Run(ctx context.Context) error {
	n.loadTables(ctx)
	deleteDetached(ctx)
	defer deleteDetached(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { n.watchConf(ctx); return nil })
	g.Go(func() error { n.reconcileLoop(ctx); return nil })
	return g.Wait()
}

// deleteDetached deletes the interfaces of detached pods that still exist.
func deleteDetached(ctx context.Context) {
	if err := bridge.DeleteDetached(); err != nil {
		logrus.WithContext(ctx).WithError(err).Warn("failed to delete the interfaces of detached pods")
	}
}

// watchConf performs the periodic checks, and further checks after changes of the files, until ctx ends.
func (n *Network) watchConf(ctx context.Context) {
	w := dirwatch.New(retryInterval, func(reason error) {
		logrus.WithContext(ctx).WithError(reason).Warnf("inotify is not available for the CNI configuration: the daemon reads it every %v; raise fs.inotify.max_user_instances", retryInterval)
	})
	defer w.Close()
	timer := time.NewTimer(0) // the first check starts at once
	defer timer.Stop()
	c := checker{n: n, watcher: w, changed: true, gc: gcSchedule{requested: true}}
	defer c.query.stop()
	for {
		select {
		case <-ctx.Done():
			return
		case ev := <-w.Events():
			if ev.Has(fsnotify.Chmod) && !ev.Has(fsnotify.Write) {
				continue
			}
			// The kernel removes the watch of a removed directory.
			if (ev.Has(fsnotify.Remove) || ev.Has(fsnotify.Rename)) && slices.Contains(n.watchedDirs(), ev.Name) {
				c.watched = false
			}
			c.changed = true
			timer.Reset(debounce)
			continue
		case err := <-w.Errors(): // events were lost in an overflow
			logrus.WithContext(ctx).WithError(err).Warn("watch of the CNI configuration failed")
			c.changed = true
		case <-w.Polls():
			c.watched, c.changed = !w.Resume(), true
		case <-n.reloadRequests:
			c.changed = true
		case <-n.updates:
			// The plugins may be in other directories, although the networks are the same.
			c.watched, c.changed, c.statusDue = false, true, time.Now()
		case <-n.gcRequests:
			c.gc.request()
		case a := <-c.query.answers:
			c.handleAnswer(ctx, a)
		case <-timer.C:
		}
		timer.Reset(time.Until(c.runDue(ctx)))
	}
}

// checker is the state of watchConf.
type checker struct {
	n       *Network
	watcher *dirwatch.Watcher
	watched bool // all directories are watched
	changed bool // files may have changed

	reloadAfter    time.Time
	reloadTimeouts int // calls of Reload in a row that ended by their timeout

	ready          bool // the last answer of the plugins of the default network to STATUS
	handlerReady   bool // the default network of a runtime handler is ready
	query          statusQuery
	statusDue      time.Time
	statusTimeouts int // queries in a row that ended by their timeout

	gc gcSchedule
}

// runDue performs all checks that are due and returns the time of the next check.
func (c *checker) runDue(ctx context.Context) time.Time {
	if !c.watched {
		c.watched, c.changed = c.n.watchDirs(c.watcher), true
	}
	if c.changed && !c.reloadAfter.After(time.Now()) {
		c.reload(ctx)
	}
	if !c.statusDue.After(time.Now()) && !c.query.running() {
		c.startQuery(ctx)
	}
	next := time.Now().Add(checkInterval)
	if !c.query.running() {
		next = earlier(next, c.statusDue)
	}
	if c.ready || c.handlerReady {
		next = earlier(next, c.gc.runIfDue(ctx, c.n.gc))
	}
	if !c.watched {
		next = earlier(next, time.Now().Add(retryInterval))
	}
	if c.changed {
		next = earlier(next, c.reloadAfter)
	}
	return next
}

// reload loads the configuration. After a timeout runDue calls it again, with more time.
func (c *checker) reload(ctx context.Context) {
	changed, err := c.n.Reload(ctx, doubled(nat.Timeout, c.reloadTimeouts))
	if c.changed = err != nil; err != nil {
		c.reloadTimeouts++
		c.reloadAfter = time.Now().Add(retryInterval)
		c.n.loaded.Load().markChecked()
		if ctx.Err() == nil {
			logrus.WithContext(ctx).WithError(err).Warn("timeout while loading the network configuration; the daemon tries again with more time")
		}
		return
	}
	c.reloadTimeouts = 0
	l := c.n.loaded.Load()
	if l.err != nil && len(l.handlerLists()) == 0 {
		l.markChecked()
	}
	if l.retry {
		c.changed, c.reloadAfter = true, time.Now().Add(retryInterval)
	}
	if changed {
		c.query.stop()
		c.ready, c.handlerReady, c.statusTimeouts, c.statusDue = false, false, 0, time.Now()
		c.gc.request()
	}
}

// doubled returns a timeout after a number of timeouts.
func doubled(d time.Duration, timeouts int) time.Duration {
	for ; timeouts > 0 && d < maxTimeout; timeouts-- {
		d *= 2
	}
	return min(d, maxTimeout)
}

// earlier returns the earlier of two times. The zero value of b means never.
func earlier(a, b time.Time) time.Time {
	if b.IsZero() || a.Before(b) {
		return a
	}
	return b
}

// watchDirs watches all configuration directories and no others. It creates missing directories, because installers
// expect them. It reports whether all directories are watched.
func (n *Network) watchDirs(w *dirwatch.Watcher) bool {
	all, dirs := true, n.watchedDirs()
	w.Keep(dirs)
	for _, dir := range dirs {
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			err = w.Add(dir)
		}
		all = all && err == nil
	}
	return all
}
