package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Remove removes a container with all it has; one that runs is killed first. A
// removal that fails leaves the container visible, to be removed again.
// Removing what is unknown is no error.
func (m *Manager) Remove(ctx context.Context, id string) error {
	c, err := m.find(id)
	if err == nil {
		err = m.remove(ctx, c)
	}
	if err = goneIsFine(err); err != nil {
		return fmt.Errorf("remove container %q: %w", short(id), err)
	}
	return nil
}

func (m *Manager) remove(ctx context.Context, c *container) error {
	if err := m.stop(ctx, c, 0); err != nil {
		return err
	}
	unlock, err := m.ops.Lock(ctx, c.id)
	if err != nil {
		return err
	}
	defer unlock()
	if !m.known(c) {
		return nil // another removal was faster
	}
	// Half a removal helps nobody: the caller cannot cancel it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	tell := m.removalOf(c)
	if err := m.teardown(ctx, c, true); err != nil {
		return err
	}
	m.unregister(c)
	c.log().Info("container removed")
	m.events.send(cri.ContainerEventType_CONTAINER_DELETED_EVENT, c.snap.Load())
	tell(ctx)
	return nil
}

func (m *Manager) known(c *container) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.containers[c.id] == c
}

// RemovePod removes every container of a pod, and its guest.
func (m *Manager) RemovePod(ctx context.Context, podID string) error {
	err := each(m.inPod(podID), func(c *container) error {
		if err := m.settled(ctx, c); err != nil {
			return err
		}
		if c.snap.Load() == nil {
			return nil // its creation failed and is undone
		}
		if err := m.remove(ctx, c); err != nil {
			return fmt.Errorf("remove container %q: %w", short(c.id), err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return m.dropGuest(ctx, podID)
}

// teardown gives back all that a container has, the runtime's part only if it
// may know the container. All steps are tried; the record goes last, and only
// when nothing else is left.
func (m *Manager) teardown(ctx context.Context, c *container, inRuntime bool) error {
	var errs []error
	if inRuntime {
		if err := c.deleteInRuntime(ctx); err != nil {
			errs = append(errs, err)
		}
	}
	if err := m.cfg.Images.Unmount(ctx, c.id); err != nil {
		errs = append(errs, fmt.Errorf("unmount root file system: %w", err))
	}
	// A create that was killed leaves a cgroup of which the runtime knows nothing.
	if path := c.rec.CgroupPath; path != "" { // else it is not known
		if err := m.cfg.Cgroups.Remove(path); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return m.removeFiles(c.id, c.rootfs(), c.dir)
}

// deleteInRuntime asks kindly first when the container has ended: by force, runc
// sends a signal even to what is dead, and waits a tenth of a second for it.
func (c *container) deleteInRuntime(ctx context.Context) error {
	if c.hasEnded() && c.runtime.Delete(ctx, c.id, false) == nil {
		return nil
	}
	return c.runtime.Delete(ctx, c.id, true)
}

// removeFiles removes the mount point first, with rmdir: were it still mounted,
// that fails, and nothing ever descends into a root file system.
func (m *Manager) removeFiles(id, rootfs, dir string) error {
	if err := os.Remove(rootfs); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove mount point: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Remove(m.exitFile(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
