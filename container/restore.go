package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/oci"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	restoreTimeout  = 3 * time.Minute // for each container
	restoreParallel = 16
	// dismissTimeout is for a monitor that is to leave by itself. It is longer than
	// what the monitor gives the OCI runtime to delete the container.
	dismissTimeout = 90 * time.Second
)

// Restore rebuilds the view of what an earlier daemon left: containers that run
// on, that ended meanwhile, that were half made. It is called once, when the
// pods are restored and before Run. It fails only when nothing at all can be
// read; a single bad record is kept, reported, and never blocks the rest: see
// unread.go.
func (m *Manager) Restore(ctx context.Context) error {
	if err := oci.AdoptOrphans(); err != nil {
		return fmt.Errorf("restore containers: %w", err)
	}
	root := filepath.Join(m.cfg.RunDir, "containers")
	// The root of a user namespace has to get to its root file system.
	for dir, perm := range map[string]os.FileMode{root: 0o711, m.exitsDir(): 0o700} {
		err := os.MkdirAll(dir, perm)
		if err == nil {
			err = os.Chmod(dir, perm) // an older daemon may have made it
		}
		if err != nil {
			return fmt.Errorf("restore containers: %w", err)
		}
	}
	if err := m.restoreGuests(ctx); err != nil {
		return fmt.Errorf("restore guests: %w", err)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return fmt.Errorf("restore containers: %w", err)
	}
	var g errgroup.Group
	g.SetLimit(restoreParallel)
	for _, e := range entries {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
			defer cancel()
			if err := m.restore(ctx, e.Name()); err != nil {
				logrus.WithContext(ctx).WithField("container", e.Name()).WithError(err).Error("container is not restored")
			}
			return nil
		})
	}
	_ = g.Wait() // each has reported its own
	m.dropForeignExits()
	return ctx.Err()
}

// restore is for one directory.
func (m *Manager) restore(ctx context.Context, id string) error {
	if !ids.Valid(id) {
		return errors.New("the directory's name is not an id")
	}
	dir := m.dir(id)
	rec, err := readRecord(dir)
	if errors.Is(err, fs.ErrNotExist) {
		// Before the record was written, or after it was removed.
		if err := m.cfg.Images.Unmount(ctx, id); err != nil {
			m.keep(id)
			return err
		}
		return m.removeFiles(id, filepath.Join(dir, "rootfs"), dir)
	}
	if err != nil {
		return m.restoreUnread(ctx, id, err)
	}
	config, podConfig, err := rec.messages()
	if err != nil {
		return m.restoreUnread(ctx, id, err)
	}
	rec.Config, rec.PodConfig = nil, nil
	if pod, err := m.cfg.Pods.Pod(rec.PodID); err == nil && pod.Config != nil {
		podConfig = pod.Config // the same, held once
	}
	c := newContainer(dir, rec, config, podConfig)
	if err := m.register(c); err != nil {
		return m.restoreUnread(ctx, id, err)
	}
	return m.resume(ctx, c)
}

func (m *Manager) keep(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept[id] = true
}

// resume finds out how far a container had come, and goes on from there.
func (m *Manager) resume(ctx context.Context, c *container) error {
	f, err := readFacts(c.dir)
	switch {
	case c.rec.Boot != m.boot:
		return m.sweep(ctx, c, false, "it is from before a reboot")
	case errors.Is(err, fs.ErrNotExist):
		return m.sweep(ctx, c, true, "its creation was cut off")
	case err != nil:
		return m.resumeUnread(ctx, c, err)
	case f.Unread != "":
		return m.resumeUnread(ctx, c, errors.New(f.Unread))
	}
	c.mu.Lock()
	c.facts = f
	if f.End != nil {
		close(c.ended)
	}
	c.publish()
	c.mu.Unlock()
	if f.End != nil {
		// The daemon may have died before it had ended the others.
		if err := m.killRest(ctx, c); err != nil {
			c.log().WithError(err).Error("other processes of the ended container are left")
		}
		c.told() // by its state, when plugins are synchronized
		return nil
	}
	m.watch(c)
	if f.Starting != 0 && f.Started == 0 && !c.hasEnded() {
		m.resumeStart(ctx, c)
	}
	m.resumeUpdate(ctx, c)
	return nil
}

// resumeStart finishes a start that was under way. The runtime refuses to start
// what runs already; then all is well, as the process is alive.
func (m *Manager) resumeStart(ctx context.Context, c *container) {
	err := c.runProcess(ctx)
	init, _ := c.refs()
	if err != nil && !init.Alive() {
		return // its end is being noticed
	}
	if err != nil {
		c.log().WithError(err).Info("the start was done already")
	}
	if err := c.change(func(f *facts) { f.Started = f.Starting }); err != nil {
		c.log().WithError(err).Warn("the container's start is not on disk")
	}
}

// sweep takes away what is of no use to anybody. If that fails the container is
// shown as one that never ran, and can be removed again.
func (m *Manager) sweep(ctx context.Context, c *container, inRuntime bool, why string) error {
	c.log().WithField("why", why).Info("container is swept away")
	if inRuntime {
		dismissMonitor(ctx, c)
	}
	if err := m.teardown(ctx, c, inRuntime); err != nil {
		c.fail(why)
		return err
	}
	m.unregister(c)
	return nil
}

// dismissMonitor is about a monitor whose answer the daemon that started it
// never wrote down. One that was not heard undoes the container by itself; one
// that was heard leaves when the container has gone. Only when it is away can
// what it made be cleaned up for good.
func dismissMonitor(ctx context.Context, c *container) {
	// Its ref is not on record before the creation is done.
	monitor, found := proc.Find(conmon.CommandLine(c.id)...)
	if !found {
		return
	}
	if err := c.runtime.Delete(ctx, c.id, true); err != nil {
		c.log().WithError(err).Warn("half-made container is not deleted at the first try")
	}
	for deadline := time.Now().Add(dismissTimeout); monitor.Alive(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) || ctx.Err() != nil {
			c.log().Warn("monitor of a half-made container does not leave: killing it")
			_ = monitor.Signal(unix.SIGKILL)
			return
		}
	}
}

// dropForeignExits removes exit records that belong to no container.
func (m *Manager) dropForeignExits() {
	entries, err := os.ReadDir(m.exitsDir())
	if err != nil {
		logrus.WithError(err).Error("exit records cannot be listed")
	}
	for _, e := range entries {
		if !m.Holds(e.Name()) {
			_ = os.Remove(filepath.Join(m.exitsDir(), e.Name()))
		}
	}
}
