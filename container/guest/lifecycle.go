package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/proc"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// watch makes the pod not ready when its guest exits.
func (m *Manager) watch(g *Record) {
	onExit := func() { m.cfg.MarkNotReady(g.PodID, "the guest of the pod has exited") }
	err := m.cfg.Watcher.Watch(g.Process, func(pidfd *os.File) {
		// The daemon is the parent of the guest and must reap it: "runtime delete" waits until
		// the process is reaped.
		_ = unix.Waitid(unix.P_PIDFD, int(pidfd.Fd()), nil, unix.WEXITED|unix.WNOHANG, nil)
		onExit()
	})
	if errors.Is(err, proc.ErrGone) {
		onExit()
	} else if err != nil {
		logrus.WithError(err).WithField("pod", g.PodID).Error("watch the guest of the pod")
	}
}

// Remove removes the guest of a pod, if the pod has one. Remove cannot be cancelled when it has begun.
func (m *Manager) Remove(ctx context.Context, podID string) error {
	if _, err := os.Lstat(m.dir(podID)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := m.ops.Lock(ctx, podID)
	if err != nil {
		return err
	}
	defer unlock()
	g, err := m.read(podID)
	if errors.Is(err, fs.ErrNotExist) {
		// The creation was interrupted before it wrote the record, or a removal after it
		// removed the record.
		return os.RemoveAll(m.dir(podID))
	}
	if err != nil {
		logrus.WithContext(ctx).WithField("pod", podID).WithError(err).Warn("the record of the guest cannot be read")
		g = m.salvage(podID)
	}
	if err := m.delete(ctx, g); err != nil {
		return fmt.Errorf("guest of pod %q: %w", short(podID), err)
	}
	return nil
}

// delete deletes a guest from the runtime, and its cgroup and files.
func (m *Manager) delete(ctx context.Context, g *Record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	if g.Boot == m.cfg.Boot {
		if err := g.Runtime.Delete(ctx, g.PodID, true); err != nil && (g.Process.Alive() || g.unreadable && g.Runtime.HasContainer(g.PodID)) {
			return err
		}
	}
	// The cgroup is left if the runtime does not know the guest.
	if g.CgroupPath != "" {
		if err := m.cfg.Cgroups.Remove(g.CgroupPath); err != nil {
			return err
		}
	}
	return os.RemoveAll(m.dir(g.PodID))
}

// Recover watches the running guests, and removes the guests that belong to no pod
// or whose creation was interrupted.
func (m *Manager) Recover(ctx context.Context) error {
	if err := os.MkdirAll(m.cfg.Dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(m.cfg.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := m.recover(ctx, e.Name()); err != nil {
			logrus.WithContext(ctx).WithField("pod", e.Name()).WithError(err).Error("recovery of the guest failed")
		}
	}
	return nil
}

// recover recovers the guest of one directory.
func (m *Manager) recover(ctx context.Context, podID string) error {
	if !ids.Valid(podID) {
		return errors.New("the name of the directory is not an id")
	}
	g, err := m.read(podID)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	podErr := m.cfg.FindPod(podID)
	if g == nil || g.Boot != m.cfg.Boot || g.Process == (proc.Ref{}) || errors.Is(podErr, errdefs.ErrNotFound) {
		return m.Remove(ctx, podID)
	}
	m.watch(g)
	return podErr
}
