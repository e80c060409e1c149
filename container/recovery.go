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
	"github.com/criserver/criserver/container/containerspec"
	"github.com/criserver/criserver/container/record"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/oci/runtime"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	recoveryTimeout  = 3 * time.Minute // for each container
	recoveryParallel = 16
	// monitorExitTimeout is how long a monitor may take to exit by itself. It is longer
	// than the time that the monitor gives the OCI runtime to delete the container.
	monitorExitTimeout = 90 * time.Second
)

// Recover rebuilds the state of the containers of an earlier daemon: running containers,
// containers that have exited since, and containers that were not created completely. The
// caller calls it once, after the recovery of the pods and before Run. Recover fails
// only if it can read nothing at all. A container whose record cannot be read is logged
// and kept, and does not affect the other containers: see recovery_unreadable.go.
func (m *Manager) Recover(ctx context.Context) error {
	if err := runtime.AdoptOrphans(); err != nil {
		return fmt.Errorf("recover containers: %w", err)
	}
	root := filepath.Join(m.cfg.RunDir, "containers")
	// Root of a user namespace must be able to reach the root file system of its container.
	dirs := map[string]os.FileMode{root: 0o711, string(m.exits): 0o700}
	if m.cfg.RestoreDir != "" {
		dirs[m.cfg.RestoreDir] = 0o700
	}
	for dir, perm := range dirs {
		err := os.MkdirAll(dir, perm)
		if err == nil {
			err = os.Chmod(dir, perm) // an older daemon may have made it with another mode
		}
		if err != nil {
			return fmt.Errorf("recover containers: %w", err)
		}
	}
	if err := m.guests.Recover(ctx); err != nil {
		return fmt.Errorf("recover guests: %w", err)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return fmt.Errorf("recover containers: %w", err)
	}
	var g errgroup.Group
	g.SetLimit(recoveryParallel)
	for _, e := range entries {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, recoveryTimeout)
			defer cancel()
			if err := m.recoverContainer(ctx, e.Name()); err != nil {
				logrus.WithContext(ctx).WithField("container", e.Name()).WithError(err).Error("recovery of the container failed")
			}
			return nil
		})
	}
	_ = g.Wait() // each goroutine has logged its error
	m.exits.RemoveOrphans(m.Holds)
	m.removeOrphanedImages()
	return ctx.Err()
}

// recoverContainer recovers the container of one directory.
func (m *Manager) recoverContainer(ctx context.Context, id string) error {
	if !ids.Valid(id) {
		return errors.New("the name of the directory is not an id")
	}
	dir := m.dir(id)
	rec, err := record.Read(dir)
	if errors.Is(err, fs.ErrNotExist) {
		// The earlier daemon died before it wrote the record or after it removed the record.
		if err := m.cfg.Images.Unmount(ctx, id); err != nil {
			m.markUnreadable(id)
			return err
		}
		return m.removeFiles(id, filepath.Join(dir, "rootfs"), dir)
	}
	if err != nil {
		return m.recoverUnreadableRecord(ctx, id, err)
	}
	config, podConfig, err := rec.Messages()
	if err != nil {
		return m.recoverUnreadableRecord(ctx, id, err)
	}
	rec.Config, rec.PodConfig = nil, nil
	if pod, err := m.cfg.Pods.Pod(rec.PodID); err == nil && pod.Config != nil {
		podConfig = pod.Config // an equal message; all containers of the pod share it
	}
	c := newContainer(dir, rec, config, podConfig)
	c.checkConfig()
	if err := m.register(c); err != nil {
		return m.recoverUnreadableRecord(ctx, id, err)
	}
	return m.resume(ctx, c)
}

// checkConfig parses the stored config with the rules for new requests. An earlier
// version of the daemon can have accepted a config that breaks a rule of this version.
// Such a container keeps its state and can be listed, stopped and removed. It cannot be
// started, because the broken rule may protect the node. The rules of the node are not checked,
// because the node may have changed since the creation.
func (c *container) checkConfig() {
	_, c.configError = containerspec.Parse(containerspec.Request{Config: c.config, Pod: c.podConfig})
	if c.configError != nil {
		c.log().WithError(c.configError).Warn("the stored config of the container breaks a rule of this version of the daemon: the container can be stopped and removed, but not started")
	}
}

// markUnreadable keeps the writable layer of a directory without a container from being
// deleted as garbage.
func (m *Manager) markUnreadable(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unreadable[id] = true
}

// resume finds out how far a container had got, and continues from there.
func (m *Manager) resume(ctx context.Context, c *container) error {
	s, err := record.ReadStatus(c.dir)
	switch {
	case c.rec.Boot != m.boot:
		return m.discard(ctx, c, false, "the container is from before a reboot")
	case errors.Is(err, fs.ErrNotExist):
		return m.discard(ctx, c, true, "the creation of the container was interrupted")
	case err != nil:
		return m.resumeUnreadable(ctx, c, err)
	case s.ReadError != "":
		return m.resumeUnreadable(ctx, c, errors.New(s.ReadError))
	}
	c.mu.Lock()
	c.status = s
	if s.Exit != nil {
		close(c.exited)
	}
	c.publish()
	c.mu.Unlock()
	if s.Exit != nil {
		// The earlier daemon may have died before it killed the other processes.
		if err := m.killRemaining(ctx, c); err != nil {
			c.log().WithError(err).Error("other processes of the exited container are still running")
		}
		c.markExitNotified() // plugins see the state when they synchronize
		return nil
	}
	m.watch(c)
	switch {
	case s.Starting == 0 || s.Started != 0 || c.hasExited():
	case c.awaitsRestore():
		return m.resumeRestore(ctx, c)
	default:
		m.resumeStart(ctx, c)
	}
	m.undoInterruptedUpdate(ctx, c)
	return nil
}

// resumeStart completes a start that was interrupted. The runtime refuses to start a
// container that is running already; in that case the first process runs.
func (m *Manager) resumeStart(ctx context.Context, c *container) {
	err := m.runProcess(ctx, c)
	init, _ := c.refs()
	if err != nil && c.awaitsRestore() {
		if ctx.Err() == nil { // otherwise the next daemon resumes the restore
			m.failStart(c, err)
		}
		return
	}
	if err != nil && !init.Alive() {
		return // the watch of the first process records the exit
	}
	if err != nil {
		c.log().WithError(err).Info("the interrupted start of the container was complete")
	}
	if err := c.change(func(s *record.Status) { s.Started = s.Starting }); err != nil {
		c.log().WithError(err).Warn("write the start of the container to its state file")
	}
}

// discard removes a container that cannot be used. If that fails, the container is
// shown as a container that never ran, and can be removed.
func (m *Manager) discard(ctx context.Context, c *container, inRuntime bool, reason string) error {
	c.log().WithField("reason", reason).Info("remove the container in the recovery")
	if inRuntime {
		stopMonitor(ctx, c)
	}
	if err := m.teardown(ctx, c, inRuntime); err != nil {
		c.fail(reason)
		return err
	}
	m.unregister(c)
	return nil
}

// stopMonitor waits for the exit of a monitor whose reply the earlier daemon did not
// write down. A monitor that could not deliver its reply deletes the container by
// itself; a monitor that delivered it exits when the container is deleted. Only after
// its exit can a teardown remove everything that the monitor has made.
func stopMonitor(ctx context.Context, c *container) {
	// The status has the monitor only when the creation is complete.
	monitor, found := proc.Find(conmon.CommandLine(c.id)...)
	if !found {
		return
	}
	if c.startDeferred() {
		_ = c.abandon() // fails if the monitor deletes the container already
	}
	if err := c.runtime.Delete(ctx, c.id, true); err != nil {
		c.log().WithError(err).Warn("delete the incomplete container; the teardown tries again")
	}
	for deadline := time.Now().Add(monitorExitTimeout); monitor.Alive(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) || ctx.Err() != nil {
			c.log().Warn("the monitor of an incomplete container does not exit: kill the monitor")
			_ = monitor.Signal(unix.SIGKILL)
			return
		}
	}
}
