package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/sirupsen/logrus"
)

// Stop ends a pod's containers and gives its resources back. It may be called
// any number of times, also side by side. Where it fails the pod is not ready,
// and taking it down goes on in the background. ErrNotFound for unknown ids.
func (m *Manager) Stop(ctx context.Context, id string) error {
	e, err := m.find(id)
	if err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	if err := m.stop(ctx, e.rec.ID); err != nil {
		return fmt.Errorf("stop pod sandbox %q: %w", e.rec.ID, err)
	}
	return nil
}

// Remove removes a pod and its containers, ending by force what still runs
// (CRI, RemovePodSandbox). Where it fails the pod stays visible. ErrNotFound
// for unknown ids.
func (m *Manager) Remove(ctx context.Context, id string) error {
	e, err := m.find(id)
	if err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	id = e.rec.ID
	if err := m.stop(ctx, id); err != nil {
		return fmt.Errorf("remove pod sandbox %q: %w", id, err)
	}
	if err := m.cfg.Containers.RemovePod(ctx, id); err != nil {
		return fmt.Errorf("remove pod sandbox %q: remove its containers: %w", id, err)
	}
	unlock, err := m.ops.Lock(ctx, id)
	if err != nil {
		return fmt.Errorf("remove pod sandbox %q: %w", id, err)
	}
	defer unlock()
	e = m.view.Load().entries[id]
	if e == nil { // another Remove was faster
		return nil
	}
	next := e.copy()
	if err := m.removeRest(ctx, next); err != nil {
		m.publish(next)
		return fmt.Errorf("remove pod sandbox %q: %w", id, err)
	}
	m.forget(id)
	logrus.WithContext(ctx).WithField("pod", id).Info("pod sandbox removed")
	m.pluginsRemoved(ctx, e.pod)
	return nil
}

// stop waits for the containers without any lock. They are ended by force, by
// the rule of the CRI: who wants them to end well stops them first.
func (m *Manager) stop(ctx context.Context, id string) error {
	if err := m.markStopped(ctx, id); err != nil {
		return err
	}
	e := m.view.Load().entries[id]
	if e == nil || e.rec.released() {
		return nil
	}
	if err := m.cfg.Containers.StopPod(ctx, id); err != nil {
		m.retries.add(id, retryFirst)
		return fmt.Errorf("stop its containers: %w", err)
	}
	_, err := m.releases.Do(ctx, id, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, m.release(ctx, id)
	})
	return err
}

// markStopped makes the pod not ready, before anything of it ends.
func (m *Manager) markStopped(ctx context.Context, id string) error {
	// A release under way holds the lock for as long as plugins take, and does
	// not come before the mark.
	if e := m.view.Load().entries[id]; e == nil || !e.rec.StoppedAt.IsZero() {
		return nil
	}
	unlock, err := m.ops.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	e := m.view.Load().entries[id]
	if e == nil || !e.rec.StoppedAt.IsZero() {
		return nil
	}
	next := e.copy()
	next.rec.StoppedAt = time.Now()
	m.save(ctx, next)
	return nil
}

// save shows a pod's new state and records it. A record that cannot be written
// does not keep a pod from ending: after a restart the kernel tells the rest.
func (m *Manager) save(ctx context.Context, e *entry) {
	if err := m.dirs.write(e.rec); err != nil {
		logrus.WithContext(ctx).WithError(err).WithField("pod", e.rec.ID).Error("state of the pod sandbox could not be recorded")
	}
	m.publish(e)
}

// release gives back all that a stopped pod holds, but its files. It has its
// own deadline, as what is half released must not stay so for a caller's sake.
func (m *Manager) release(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.cfg.TeardownTimeout)
	defer cancel()
	unlock, err := m.ops.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	e := m.view.Load().entries[id]
	if e == nil || e.rec.released() {
		return nil
	}
	next := e.copy()
	err = m.teardown(ctx, next)
	if err == nil {
		next.rec.ReleasedAt, next.rec.Trouble = time.Now(), ""
	} else {
		// Also a hidden one is now the kubelet's to see.
		next.hidden = false
		next.rec.Trouble = fmt.Sprintf("it is still being taken down: %v", err)
		if next.rec.StoppedAt.IsZero() {
			next.rec.StoppedAt = time.Now()
		}
		m.retries.add(id, retryFirst)
	}
	m.save(ctx, next)
	if err == nil && !next.hidden {
		logrus.WithContext(ctx).WithField("pod", id).Info("pod sandbox stopped")
	}
	return err
}

// teardown undoes what build did, each step whatever became of the others, and
// notes in the record how far it came. It is called with the operation lock
// held, on an entry that is not published.
func (m *Manager) teardown(ctx context.Context, e *entry) error {
	m.pluginsStopped(ctx, e)
	r, pins := e.rec, m.dirs.pin(e.rec.ID)
	errs := []error{m.stopPause(ctx, e)}
	// Whoever owns a network outlives it for the plugins' sake.
	names := []string{namespace.IPC, namespace.UTS, namespace.PID}
	if err := m.detach(ctx, e); err != nil {
		// The plugins need the network namespace again for the next try.
		errs = append(errs, err)
	} else {
		if r.Plan != nil && r.DetachedAt.IsZero() {
			r.DetachedAt = time.Now()
		}
		m.ports.release(r.ID)
		names = append(names, namespace.Net, namespace.User)
	}
	errs = append(errs, namespace.Unpin(pins, names...))
	if len(names) == len(namespace.All) {
		if err := os.Remove(pins); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	errs = append(errs, namespace.Unmount(filepath.Join(m.dirs.pod(r.ID), shmDir)))
	return errors.Join(errs...)
}

// removeRest removes what is left of a pod that was taken down: its cgroup, then
// its files. The record goes last, because the next daemon finds the pod by the
// record. e is not published; a caller that keeps the pod publishes e.
func (m *Manager) removeRest(ctx context.Context, e *entry) error {
	if err := m.stopSlice(ctx, e.rec); err != nil {
		return err
	}
	if err := m.removeCgroup(e); err != nil {
		return err
	}
	if err := m.removeFiles(e.rec.ID); err != nil {
		return err
	}
	m.releaseLabels(e)
	return nil
}
