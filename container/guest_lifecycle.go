package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/proc"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// watchGuest makes the pod not ready when its guest exits.
func (m *Manager) watchGuest(g *guestRecord) {
	onExit := func() { m.cfg.Pods.MarkNotReady(g.PodID, "the guest of the pod has exited") }
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

// removePodGuest removes the guest of a pod, if the pod has one.
func (m *Manager) removePodGuest(ctx context.Context, podID string) error {
	if _, err := os.Lstat(m.guestDir(podID)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := m.lockGuest(ctx, podID)
	if err != nil {
		return err
	}
	defer unlock()
	g, err := m.readGuest(podID)
	if errors.Is(err, fs.ErrNotExist) {
		// The creation was interrupted before it wrote the record, or a removal after it
		// removed the record.
		return os.RemoveAll(m.guestDir(podID))
	}
	if err != nil {
		logrus.WithContext(ctx).WithField("pod", podID).WithError(err).Warn("the record of the guest cannot be read")
		g = m.salvageGuest(podID)
	}
	if err := m.deleteGuest(ctx, g); err != nil {
		return fmt.Errorf("guest of pod %q: %w", short(podID), err)
	}
	return nil
}

// deleteGuest deletes a guest from the runtime, and its cgroup and files.
func (m *Manager) deleteGuest(ctx context.Context, g *guestRecord) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), guestTimeout)
	defer cancel()
	if g.Boot == m.boot {
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
	return os.RemoveAll(m.guestDir(g.PodID))
}

// recoverGuests watches the running guests, and removes the guests that belong to no pod
// or whose creation was interrupted.
func (m *Manager) recoverGuests(ctx context.Context) error {
	dir := filepath.Join(m.cfg.RunDir, "guests")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := m.recoverGuest(ctx, e.Name()); err != nil {
			logrus.WithContext(ctx).WithField("pod", e.Name()).WithError(err).Error("recovery of the guest failed")
		}
	}
	return nil
}

func (m *Manager) recoverGuest(ctx context.Context, podID string) error {
	if !ids.Valid(podID) {
		return errors.New("the name of the directory is not an id")
	}
	g, err := m.readGuest(podID)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, podErr := m.cfg.Pods.Pod(podID)
	if g == nil || g.Boot != m.boot || g.Process == (proc.Ref{}) || errors.Is(podErr, errdefs.ErrNotFound) {
		return m.removePodGuest(ctx, podID)
	}
	m.watchGuest(g)
	return podErr
}
