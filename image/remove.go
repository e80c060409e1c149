package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
)

// Remove deletes an image with all its tags, and the layers that only it had.
// Disk space is freed a little later. Errors: ErrNotFound, ErrFailedPrecondition
// while a container uses it.
func (m *Manager) Remove(ctx context.Context, ref string) error {
	unlock, err := m.lockCommit(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	img, err := m.find(ref)
	if err != nil {
		return err
	}
	before := m.now.Load()
	if err := m.unpublish(img); err != nil {
		return err
	}
	if err := m.bin.Put(m.imageDir(img.ID)); err != nil {
		m.restore(before)
		return fmt.Errorf("remove image %s: %w", img.ID, err)
	}
	// The image is gone; what cannot be deleted of its layers now is what
	// expire finds.
	if err := m.layers.Drop(context.WithoutCancel(ctx), img.diffIDs()); err != nil {
		return fmt.Errorf("remove image %s: %w", img.ID, err)
	}
	return nil
}

// unpublish makes an image unknown, unless it is in use. From then on nobody
// can begin to use it.
func (m *Manager) unpublish(img *stored) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if user := m.user(img.ID); user != "" {
		return fmt.Errorf("remove image %s: %s: %w", img.ID, user, errdefs.ErrFailedPrecondition)
	}
	old := m.now.Load()
	m.now.Store(newIndex(old.with(nil, img.ID), old.broken, m.cfg.PinnedImages))
	return nil
}

// restore puts back an index; the lock of commit has kept others from changing
// it meanwhile.
func (m *Manager) restore(x *index) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now.Store(x)
}

// use keeps an image from being removed until done is called.
func (m *Manager) use(id ID) (img *stored, done func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	img, ok := m.now.Load().byID[id]
	if !ok {
		return nil, nil, fmt.Errorf("image %q: %w", id, errdefs.ErrNotFound)
	}
	m.mounting[id]++
	return img, func() { m.unuse(id) }, nil
}

func (m *Manager) unuse(id ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mounting[id]--; m.mounting[id] == 0 {
		delete(m.mounting, id)
	}
}

// Sweep removes the writable layers and image volumes of containers that live
// does not know.
func (m *Manager) Sweep(ctx context.Context, live func(containerID string) bool) error {
	if err := errors.Join(m.rootfs.Sweep(ctx, live), m.volumes.Sweep(ctx, live)); err != nil {
		return fmt.Errorf("sweep what containers had of images: %w", err)
	}
	return nil
}
