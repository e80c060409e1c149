package image

import (
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
)

// holding is a root file system or an image volume of one container.
type holding struct {
	container string
	image     string
	layers    []string // diff IDs; none in a record of an older version
	unknown   bool     // the record cannot be read: it may be any image
}

// holdings returns the root file systems and image volumes of all containers.
func (m *Manager) holdings() []holding {
	var all []holding
	for _, r := range m.rootfs.Records() {
		all = append(all, holding{r.ContainerID, r.ImageID, r.Layers, r.Unreadable})
	}
	for _, r := range m.volumes.Records() {
		all = append(all, holding{r.ContainerID, r.ImageID, r.Layers, r.Unreadable})
	}
	return all
}

// user names the container that uses, may use or is about to use an image. It returns "" if
// there is none. The caller holds mu.
func (m *Manager) user(id ID) string {
	if m.mounting[id] > 0 {
		return "a container that is being created uses it"
	}
	for _, h := range m.holdings() {
		switch {
		case h.unknown:
			return fmt.Sprintf("container %s may use it, the record of what that has mounted cannot be read", h.container)
		case h.image == id.String():
			return fmt.Sprintf("container %s uses it", h.container)
		}
	}
	return ""
}

// userOf is user for callers that do not hold mu.
func (m *Manager) userOf(id ID) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.user(id)
}

// layerUser names the container that has, or may have, a layer mounted. It returns "" if
// there is none.
func (m *Manager) layerUser(id digest.Digest) string {
	x := m.now.Load()
	for _, h := range m.holdings() {
		switch {
		case h.unknown:
			return fmt.Sprintf("container %s may use it, the record of what that has mounted cannot be read", h.container)
		case slices.Contains(h.layers, id.String()), len(h.layers) == 0 && x.mayHave(ID(h.image), id):
			return fmt.Sprintf("container %s uses it", h.container)
		}
	}
	return ""
}

// mayHave reports whether an image has a layer. It returns true if the layers of the image
// are unknown.
func (x *index) mayHave(id ID, layer digest.Digest) bool {
	if img, ok := x.byID[id]; ok {
		return slices.ContainsFunc(img.Layers, func(l Layer) bool { return l.DiffID == layer })
	}
	if b, ok := x.broken[id]; ok && len(b.layers) > 0 {
		return slices.Contains(b.layers, layer)
	}
	return true
}

// layerMounted says whether a container has a layer mounted, or may have.
func (m *Manager) layerMounted(id digest.Digest) bool { return m.layerUser(id) != "" }

// layerUsed says whether a layer must stay.
func (m *Manager) layerUsed(id digest.Digest) bool {
	return m.now.Load().usesLayer[id] || m.layerMounted(id)
}

// layerDurable says whether a record of an image or a container names a layer.
// Images are recorded after their layers were synced, and containers have only
// layers of such images.
func (m *Manager) layerDurable(id digest.Digest) bool {
	return m.now.Load().usesLayer[id] ||
		slices.ContainsFunc(m.holdings(), func(h holding) bool { return slices.Contains(h.layers, id.String()) })
}

// layerNames returns the diff IDs of an image as records have them.
func layerNames(img *stored) []string {
	names := make([]string, 0, len(img.Layers))
	for _, l := range img.Layers {
		names = append(names, l.DiffID.String())
	}
	return names
}
