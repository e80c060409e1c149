package image

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/criserver/criserver/image/layer"
)

// ContainerRootFS is the root file system of a container.
type ContainerRootFS struct {
	ImageID     ID
	Target      string // the mount point, or "" in records of older versions
	Upper, Work string
	Lower       []LowerDir // topmost first
}

// LowerDir is a lower directory of a root file system.
type LowerDir struct {
	Path   string
	DiffID digest.Digest // "" for the cover of the image, see layer.Stack
}

// ContainerRootFS returns the root file system of a container. It returns ErrNotFound if there is
// none, and ErrDataLoss if its layers are unknown.
func (m *Manager) ContainerRootFS(containerID string) (ContainerRootFS, error) {
	r, err := m.rootfs.Record(containerID)
	if err != nil {
		return ContainerRootFS{}, err
	}
	fs := ContainerRootFS{ImageID: ID(r.ImageID), Target: r.Target}
	fs.Upper, fs.Work = m.rootfs.Dirs(containerID)
	var layers []*layer.Layer
	for _, id := range r.Layers {
		l, ok := m.layers.Get(digest.Digest(id))
		if !ok {
			return ContainerRootFS{}, fmt.Errorf("layer %s of container %q: %w", id, containerID, errdefs.ErrDataLoss)
		}
		layers = append(layers, l)
	}
	if len(layers) == 0 {
		return ContainerRootFS{}, fmt.Errorf("layers of container %q are not known: %w", containerID, errdefs.ErrDataLoss)
	}
	if img, ok := m.index.Load().byID[fs.ImageID]; ok && img.cover {
		fs.Lower = append(fs.Lower, LowerDir{Path: filepath.Join(m.imageDir(img.ID), coverDir)})
	}
	for _, l := range layer.NewStack(layers).Layers() {
		fs.Lower = append(fs.Lower, LowerDir{l.Dir(), l.DiffID})
	}
	return fs, nil
}

// StoredLayer returns a layer of the store.
func (m *Manager) StoredLayer(id digest.Digest) (*layer.Layer, bool) { return m.layers.Get(id) }

// ImageContainers returns the sorted ids of the containers that have an image mounted, as the root file
// system or as a volume.
func (m *Manager) ImageContainers(id ID) []string {
	return m.containersWith(func(mount imageMount) bool { return mount.image == id.String() })
}

// LayerContainers returns the sorted ids of the containers that have a layer mounted.
func (m *Manager) LayerContainers(id digest.Digest) []string {
	return m.containersWith(func(mount imageMount) bool { return slices.Contains(mount.layers, id.String()) })
}

func (m *Manager) containersWith(has func(imageMount) bool) []string {
	var all []string
	for _, mount := range m.imageMounts() {
		if has(mount) {
			all = append(all, mount.container)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Step is a step of the history of an image.
type Step struct {
	History *ispec.History // nil for a layer without history
	Layer   int            // index of the layer, or -1 for a step without a layer
}

// Steps returns the steps that made an image, lowest first. Each layer is in exactly one step. If the
// history describes fewer layers than the image has, the last layers have no history; if it describes
// more layers, the rest of the history is omitted, because its layers do not exist.
func (img *Image) Steps() []Step {
	var steps []Step
	next := 0
	for i := range img.Config.History {
		h := &img.Config.History[i]
		switch {
		case h.EmptyLayer:
			steps = append(steps, Step{h, -1})
		case next < len(img.Layers):
			steps = append(steps, Step{h, next})
			next++
		}
	}
	for ; next < len(img.Layers); next++ {
		steps = append(steps, Step{nil, next})
	}
	return steps
}
