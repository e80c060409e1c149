package image

import (
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// imageMount is a root file system or an image volume of a container.
type imageMount struct {
	container  string
	image      string
	layers     []string // diff IDs; empty in records of older versions
	unreadable bool     // the record cannot be read, so the image can be any image
}

// imageMounts returns the root file systems and image volumes of all containers.
func (m *Manager) imageMounts() []imageMount {
	var all []imageMount
	for _, r := range m.rootfs.Records() {
		all = append(all, imageMount{r.ContainerID, r.ImageID, r.Layers, r.Unreadable})
	}
	for _, r := range m.volumes.Records() {
		all = append(all, imageMount{r.ContainerID, r.ImageID, r.Layers, r.Unreadable})
	}
	return all
}

// use protects an image from removal until release is called.
func (m *Manager) use(id ID) (img *stored, release func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	img, ok := m.index.Load().byID[id]
	if !ok {
		return nil, nil, fmt.Errorf("image %q: %w", id, errdefs.ErrNotFound)
	}
	m.mounting[id]++
	return img, func() { m.release(id) }, nil
}

func (m *Manager) release(id ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mounting[id]--; m.mounting[id] == 0 {
		delete(m.mounting, id)
	}
}

// imageUser describes the container that uses, may use or is about to use an image. It returns "" if
// there is none.
func (m *Manager) imageUser(id ID) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.imageUserLocked(id)
}

// imageUserLocked is imageUser for callers that hold mu.
func (m *Manager) imageUserLocked(id ID) string {
	if m.mounting[id] > 0 {
		return "a container that is being created uses the image"
	}
	for _, mount := range m.imageMounts() {
		switch {
		case mount.unreadable:
			return fmt.Sprintf("container %s may use the image: the record of its mount cannot be read", mount.container)
		case mount.image == id.String():
			return fmt.Sprintf("container %s uses the image", mount.container)
		}
	}
	return ""
}

// layerUser describes the container that has, or may have, a layer mounted. It returns "" if there
// is none.
func (m *Manager) layerUser(id digest.Digest) string {
	x := m.index.Load()
	for _, mount := range m.imageMounts() {
		switch {
		case mount.unreadable:
			return fmt.Sprintf("container %s may use the layer: the record of its mount cannot be read", mount.container)
		case slices.Contains(mount.layers, id.String()), len(mount.layers) == 0 && x.mayHaveLayer(ID(mount.image), id):
			return fmt.Sprintf("container %s uses the layer", mount.container)
		}
	}
	return ""
}

// mayHaveLayer reports whether an image has a layer. It returns true if the layers of the image are
// unknown.
func (x *index) mayHaveLayer(id ID, layer digest.Digest) bool {
	if img, ok := x.byID[id]; ok {
		return slices.ContainsFunc(img.Layers, func(l Layer) bool { return l.DiffID == layer })
	}
	if b, ok := x.broken[id]; ok && len(b.layers) > 0 {
		return slices.Contains(b.layers, layer)
	}
	return true
}

// layerMounted reports whether a container has a layer mounted, or may have it mounted.
func (m *Manager) layerMounted(id digest.Digest) bool { return m.layerUser(id) != "" }

// layerUsed reports whether a layer must not be deleted.
func (m *Manager) layerUsed(id digest.Digest) bool {
	return m.index.Load().usesLayer[id] || m.layerMounted(id)
}

// layerDurable reports whether the record of an image or of a container has a layer. The record of an
// image is written after the layers were synced, and containers have only layers of such images.
func (m *Manager) layerDurable(id digest.Digest) bool {
	return m.index.Load().usesLayer[id] ||
		slices.ContainsFunc(m.imageMounts(), func(mount imageMount) bool { return slices.Contains(mount.layers, id.String()) })
}

// diffIDStrings returns the diff IDs of an image as strings, for records.
func diffIDStrings(img *stored) []string {
	ids := make([]string, 0, len(img.Layers))
	for _, l := range img.Layers {
		ids = append(ids, l.DiffID.String())
	}
	return ids
}
