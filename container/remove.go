package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/criserver/criserver/internal/steps"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Remove removes a container, and kills it first if it is running. After a removal that
// failed, the container is still visible and can be removed again. To remove a container
// that does not exist is no error.
func (m *Manager) Remove(ctx context.Context, id string) error {
	c, err := m.find(id)
	if err == nil {
		err = m.remove(ctx, c)
	}
	if err = ignoreNotFound(err); err != nil {
		return fmt.Errorf("remove container %q: %w", short(id), err)
	}
	return nil
}

func (m *Manager) remove(ctx context.Context, c *container) (err error) {
	ctx, step := steps.Begin(ctx, steps.ContainerRemove, c.stepObject())
	defer step.EndWith(&err)
	if err := m.stop(ctx, c, 0); err != nil {
		return err
	}
	unlock, err := m.ops.Lock(ctx, c.id)
	if err != nil {
		return err
	}
	defer unlock()
	if !m.isRegistered(c) {
		return nil // another call has removed the container
	}
	// The caller cannot cancel the removal, because half a removal is of no use.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	last := m.lastSnapshot(c)
	if err := m.teardown(ctx, c, true); err != nil {
		return err
	}
	m.unregister(c)
	steps.Forget(ctx, c.id)
	c.log().Info("container removed")
	m.events.send(cri.ContainerEventType_CONTAINER_DELETED_EVENT, c.snap.Load())
	m.notify(ctx, last, Plugins.Removed)
	return nil
}

func (m *Manager) isRegistered(c *container) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.containers[c.id] == c
}

// RemovePod removes every container and the guest of a pod.
func (m *Manager) RemovePod(ctx context.Context, podID string) error {
	err := forEach(m.podContainers(podID), func(c *container) error {
		if err := m.awaitCreation(ctx, c); err != nil {
			return err
		}
		if c.snap.Load() == nil {
			return nil // the creation failed and was rolled back
		}
		if err := m.remove(ctx, c); err != nil {
			return fmt.Errorf("remove container %q: %w", short(c.id), err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return m.guests.Remove(ctx, podID)
}

// teardown releases everything that a container has. It asks the runtime only if the
// runtime may have the container. A step that fails does not keep the other steps from
// running. The record is removed last, and only if all other steps have succeeded.
func (m *Manager) teardown(ctx context.Context, c *container, inRuntime bool) error {
	var errs []error
	if inRuntime {
		if err := c.deleteFromRuntime(ctx); err != nil {
			errs = append(errs, err)
		}
	}
	unmountCtx, step := steps.Start(ctx, steps.RootFSUnmount)
	err := m.cfg.Images.Unmount(unmountCtx, c.id)
	if step.End(err); err != nil {
		errs = append(errs, fmt.Errorf("unmount root file system: %w", err))
	}
	// A killed "runtime create" leaves a cgroup that the runtime does not know. The path is
	// "" if the record could not be read.
	if path := c.rec.CgroupPath; path != "" {
		_, step := steps.Start(ctx, steps.CgroupRemove)
		err := m.cfg.Cgroups.Remove(path)
		if step.End(err); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if c.rec.Restore != nil {
		if err := os.RemoveAll(c.rec.Restore.Images); err != nil {
			return err
		}
	}
	return m.removeFiles(c.id, c.rootfs(), c.dir)
}

// deleteFromRuntime tries to delete an exited container without force first. With
// force, runc sends a signal even to an exited process and then waits for 100 ms.
func (c *container) deleteFromRuntime(ctx context.Context) error {
	if c.hasExited() && c.runtime.Delete(ctx, c.id, false) == nil {
		return nil
	}
	return c.runtime.Delete(ctx, c.id, true)
}

// removeFiles removes the mount point first, with rmdir, which fails if the root file
// system is still mounted. So removeFiles never deletes files of a root file system.
func (m *Manager) removeFiles(id, rootfs, dir string) error {
	if err := os.Remove(rootfs); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove mount point: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return m.exits.Remove(id)
}
