package image

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// Remove deletes an image with all its tags, and the layers that no other image has. The files are
// deleted in the background. Remove returns ErrNotFound if there is no such image, and
// ErrFailedPrecondition if a container uses the image.
func (m *Manager) Remove(ctx context.Context, ref string) error {
	unlock, err := m.lockChanges(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	img, err := m.find(ref)
	if err != nil {
		return err
	}
	before := m.index.Load()
	if err := m.unpublish(img); err != nil {
		return err
	}
	if err := m.bin.Put(m.imageDir(img.ID)); err != nil {
		m.setIndex(before)
		return fmt.Errorf("remove image %s: %w", img.ID, err)
	}
	// The image is removed. The layers that cannot be deleted now are deleted by expireLayers.
	if err := m.layers.Drop(context.WithoutCancel(ctx), img.diffIDs()); err != nil {
		return fmt.Errorf("remove image %s: %w", img.ID, err)
	}
	return nil
}

// unpublish removes an image from the index, unless the image is in use. No container can use the
// image after that.
func (m *Manager) unpublish(img *stored) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if user := m.imageUserLocked(img.ID); user != "" {
		return fmt.Errorf("remove image %s: %s: %w", img.ID, user, errdefs.ErrFailedPrecondition)
	}
	old := m.index.Load()
	m.index.Store(newIndex(old.with(nil, img.ID), old.broken, m.pinned))
	return nil
}

// setIndex restores an index. The caller holds the change lock since it loaded the index, so no other
// goroutine has changed the index since then.
func (m *Manager) setIndex(x *index) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index.Store(newIndex(x.all, x.broken, m.pinned)) // the patterns may have changed since x was loaded
}

// removeBrokenImage is Remove for an image that cannot be loaded.
func (m *Manager) removeBrokenImage(ctx context.Context, id ID) error {
	unlock, err := m.lockChanges(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	layers, err := m.deleteBrokenImage(id)
	return errors.Join(err, m.layers.Drop(context.WithoutCancel(ctx), layers))
}

// deleteBrokenImage deletes the directory of a broken image, unless a container uses the image, and
// returns the layers of the image. The caller holds the change lock.
func (m *Manager) deleteBrokenImage(id ID) (layers []digest.Digest, err error) {
	before := m.index.Load()
	b, ok := before.broken[id]
	if !ok {
		return nil, nil
	}
	if err := m.unpublishBroken(id); err != nil {
		return nil, err
	}
	if err := m.bin.Put(m.imageDir(id)); err != nil {
		m.setIndex(before)
		return nil, fmt.Errorf("remove image %s: %w", id, err)
	}
	return b.layers, nil
}

// unpublishBroken removes a broken image from the index, unless a container uses the image.
func (m *Manager) unpublishBroken(id ID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if user := m.imageUserLocked(id); user != "" {
		return fmt.Errorf("remove image %s: %s: %w", id, user, errdefs.ErrFailedPrecondition)
	}
	old := m.index.Load()
	broken := maps.Clone(old.broken)
	delete(broken, id)
	m.index.Store(newIndex(old.all, broken, m.pinned))
	return nil
}

// Sweep removes the root file systems and image volumes of the containers for which live returns
// false.
func (m *Manager) Sweep(ctx context.Context, live func(containerID string) bool) error {
	if err := errors.Join(m.rootfs.Sweep(ctx, live), m.volumes.Sweep(ctx, live)); err != nil {
		return fmt.Errorf("remove root file systems and volumes of unknown containers: %w", err)
	}
	return nil
}
