package image

import (
	"context"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// Removal is an image that was removed or that can be removed.
type Removal struct {
	Image Image
	// Freed are the bytes that only this image has, and images that are removed before it.
	Freed uint64
	Err   error // why the image could not be removed, or nil
}

// PruneOptions select the images that Prune removes.
type PruneOptions struct {
	All    bool // also images with a tag
	DryRun bool // remove nothing
	// MinAge is the time for which an image is kept after its pull, because a pod that needs the image
	// may be starting.
	MinAge time.Duration
}

// Prune removes the images that no container uses and that are not pinned. It returns the removed
// images, and the number of images that were kept only because of MinAge.
func (m *Manager) Prune(ctx context.Context, o PruneOptions) (removed []Removal, young int, err error) {
	gone := make(map[ID]bool)
	for _, img := range m.List() {
		if img.Pinned || !o.All && len(img.RepoTags) > 0 || m.imageUser(img.ID) != "" {
			continue
		}
		if time.Since(img.PulledAt) < o.MinAge {
			young++
			continue
		}
		if ctx.Err() != nil {
			return removed, young, context.Cause(ctx)
		}
		r := Removal{Image: img, Freed: m.freedBytes(&img, gone)}
		if !o.DryRun {
			r.Err = m.Remove(ctx, img.ID.String())
			if errdefs.IsNotFound(r.Err) {
				continue // another caller has removed the image
			}
		}
		if r.Err == nil {
			gone[img.ID] = true
		} else {
			r.Freed = 0
		}
		removed = append(removed, r)
	}
	return removed, young, nil
}

// FreedBytes returns the disk usage that only an image has, in bytes.
func (m *Manager) FreedBytes(img *Image) uint64 { return m.freedBytes(img, nil) }

// freedBytes returns the bytes that the removal of an image frees after the images in gone have been
// removed.
func (m *Manager) freedBytes(img *Image, gone map[ID]bool) uint64 {
	shared := make(map[digest.Digest]bool)
	for _, other := range m.List() {
		if other.ID == img.ID || gone[other.ID] {
			continue
		}
		for _, l := range other.Layers {
			shared[l.DiffID] = true
		}
	}
	freed := img.Size
	for _, l := range img.Layers {
		freed -= min(freed, m.keptBytes(l, shared))
	}
	return freed
}

// keptBytes returns the bytes of a layer that stay because another image or a container has the layer.
// A layer that an image has twice is stored once, and counted twice in the size of the image.
func (m *Manager) keptBytes(l Layer, shared map[digest.Digest]bool) uint64 {
	if shared[l.DiffID] || m.layerMounted(l.DiffID) {
		return l.Size
	}
	shared[l.DiffID] = true
	return 0
}

// PullProgressOf returns the progress of the running pull of a request. ok is false if there is none.
func (m *Manager) PullProgressOf(req PullRequest) (progress PullProgress, ok bool) {
	key, err := m.pullKey(req)
	if err != nil {
		return progress, false
	}
	for _, p := range m.puller.Load().Running() {
		if p.Key == key {
			return p, true
		}
	}
	return progress, false
}
