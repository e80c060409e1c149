package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/criserver/criserver/sandbox/podfiles"
	"github.com/sirupsen/logrus"
)

// markTimeout bounds the wait for the operation lock of a pod that is marked as not ready.
const markTimeout = time.Minute

// Stop stops the containers of a pod by force and releases the resources of the pod. It may be
// called any number of times, also concurrently. If Stop fails, the pod is not ready, and the
// teardown is retried in the background. It returns ErrNotFound for an unknown id.
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

// Remove stops a pod and removes the pod and its containers (CRI, RemovePodSandbox). If Remove fails, the pod stays
// visible. It returns ErrNotFound for an unknown id.
func (m *Manager) Remove(ctx context.Context, id string) (err error) {
	e, err := m.find(id)
	if err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	id = e.rec.ID
	ctx, step := steps.Begin(ctx, steps.PodRemove, stepObject(id, e.spec))
	defer step.EndWith(&err)
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
	if e == nil { // removed by a concurrent call
		return nil
	}
	next := e.copy()
	if err := m.removeRest(ctx, next); err != nil {
		m.publish(next)
		return fmt.Errorf("remove pod sandbox %q: %w", id, err)
	}
	m.forget(id)
	steps.Forget(ctx, id)
	logrus.WithContext(ctx).WithField("pod", id).Info("pod sandbox removed")
	m.notify(ctx, e.pod, Plugins.Removed)
	return nil
}

// stop holds no lock while it waits for the containers. It stops the containers by force: a client
// that wants a graceful stop stops the containers first (CRI, StopPodSandbox).
func (m *Manager) stop(ctx context.Context, id string) (err error) {
	e := m.view.Load().entries[id]
	if e != nil && !e.rec.released() { // the kubelet repeats StopPodSandbox
		var step *steps.Step
		ctx, step = steps.Begin(ctx, steps.PodStop, stepObject(id, e.spec))
		defer step.EndWith(&err)
	}
	if err := m.markStopped(ctx, id); err != nil {
		return err
	}
	e = m.view.Load().entries[id]
	if e == nil || e.rec.released() {
		return nil
	}
	if err := m.cfg.Containers.StopPod(ctx, id); err != nil {
		m.retries.add(id, firstRetryDelay)
		return fmt.Errorf("stop its containers: %w", err)
	}
	_, err = m.releases.Do(ctx, id, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, m.release(ctx, id)
	})
	return err
}

// markStopped makes the pod not ready, before any of its containers or resources are stopped.
func (m *Manager) markStopped(ctx context.Context, id string) error {
	// A release in progress holds the operation lock for as long as the CNI plugins take. It begins after the mark, so a
	// pod that is marked needs no lock.
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

// MarkNotReady makes a ready pod not ready. reason is shown to users. MarkNotReady does nothing if the pod is not ready
// or if another operation holds the pod's lock for too long.
func (m *Manager) MarkNotReady(id, reason string) {
	if e := m.view.Load().entries[id]; e == nil || !e.rec.ready() {
		return // a stop is in progress and holds the lock
	}
	ctx, cancel := context.WithTimeout(context.Background(), markTimeout)
	defer cancel()
	unlock, err := m.ops.Lock(ctx, id)
	if err != nil {
		return // the operation that holds the lock is stopping the pod
	}
	defer unlock()
	e := m.view.Load().entries[id]
	if e == nil || !e.rec.ready() {
		return
	}
	next := e.copy()
	next.rec.LostReason = reason
	m.save(ctx, next)
	logrus.WithFields(logrus.Fields{"pod": id, "reason": reason}).Warn("pod sandbox is no longer ready")
}

// save writes the record of an entry and publishes the entry. If the record cannot be written, the pod can be stopped
// nevertheless: after a restart, the daemon finds from the kernel what remains of the pod.
func (m *Manager) save(ctx context.Context, e *entry) {
	if err := m.dirs.write(e.rec); err != nil {
		logrus.WithContext(ctx).WithError(err).WithField("pod", e.rec.ID).Error("cannot write the record of the pod sandbox")
	}
	m.publish(e)
}

// release releases all resources of a stopped pod but its files. It has its own deadline, because a teardown must
// continue when its caller leaves.
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
		next.rec.ReleasedAt, next.rec.TeardownError = time.Now(), ""
	} else {
		// Leftovers that were hidden become visible too, so that the kubelet can remove them.
		next.hidden = false
		next.rec.TeardownError = fmt.Sprintf("its teardown is not complete: %v", err)
		if next.rec.StoppedAt.IsZero() {
			next.rec.StoppedAt = time.Now()
		}
		m.retries.add(id, firstRetryDelay)
	}
	m.save(ctx, next)
	if err == nil && !next.hidden {
		logrus.WithContext(ctx).WithField("pod", id).Info("pod sandbox stopped")
	}
	return err
}

// teardown undoes the steps of build. It runs all its steps even if some fail, joins their errors,
// and records the steps that have succeeded. The caller must hold the operation lock. e must not be
// published.
func (m *Manager) teardown(ctx context.Context, e *entry) error {
	if e.inPlugins { // plugins are notified once, even if the teardown is repeated
		e.inPlugins = false
		m.notify(ctx, m.snapshot(e), Plugins.Stopped)
	}
	r, pins := e.rec, m.dirs.pin(e.rec.ID)
	errs := []error{m.stopPause(ctx, e)}
	names := []string{namespace.IPC, namespace.UTS, namespace.PID}
	if err := m.detach(ctx, e); err != nil {
		// The CNI plugins need the network namespace, and the user namespace that owns it, for the next attempt.
		errs = append(errs, err)
	} else {
		if r.Plan != nil && r.DetachedAt.IsZero() {
			r.DetachedAt = time.Now()
		}
		m.ports.release(r.ID)
		if err := m.removeName(r.ID, r.NetNSName); err != nil {
			errs = append(errs, err)
		} else {
			names = append(names, namespace.Net, namespace.User)
		}
	}
	errs = append(errs, namespace.Unpin(pins, names...))
	if len(names) == len(namespace.All) {
		if err := os.Remove(pins); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	errs = append(errs, namespace.Unmount(filepath.Join(m.dirs.pod(r.ID), podfiles.Shm)))
	return errors.Join(errs...)
}

// removeRest removes the cgroup, the files and the labels of a pod after its teardown. It removes
// the record last, because the next daemon finds the pod by its record. e must not be published; if
// removeRest fails, the caller publishes e.
func (m *Manager) removeRest(ctx context.Context, e *entry) error {
	if err := m.stopSlice(ctx, e.rec); err != nil {
		return err
	}
	if err := m.removeCgroup(ctx, e); err != nil {
		return err
	}
	if err := m.removeFiles(e.rec.ID); err != nil {
		return err
	}
	m.releaseLabels(e)
	return nil
}

// removeFiles removes the directory of a pod. It removes the record after the other files, because
// the next daemon finds the pod by its record.
func (m *Manager) removeFiles(id string) error {
	dir := m.dirs.pod(id)
	if err := (podfiles.Dir{Path: dir}).Remove(); err != nil {
		return fmt.Errorf("remove files: %w", err)
	}
	if err := os.Remove(m.dirs.file(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove files: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove files: %w", err)
	}
	return nil
}
