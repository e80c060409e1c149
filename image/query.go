package image

import (
	"context"
	"slices"
	"time"
)

// Get returns the image that ref names: an id with or without "sha256:", a
// unique prefix of one, a tag or a digest reference. A name without a registry
// or a tag is completed as Pull does it. Errors: ErrNotFound, and
// ErrInvalidArgument for a prefix of several ids.
func (m *Manager) Get(ref string) (Image, error) {
	img, err := m.find(ref)
	if err != nil {
		return Image{}, err
	}
	return img.Image, nil
}

func (m *Manager) find(ref string) (*stored, error) {
	return m.now.Load().find(ref, func() []string {
		var names []string
		for _, n := range m.puller.LocalCandidates(ref) {
			names = append(names, n.String())
		}
		return names
	})
}

// Repositories returns the repositories that ref can stand for, as in
// "docker.io/library/nginx" for "nginx", in the order in which Pull tries them.
func (m *Manager) Repositories(ref string) []string {
	var names []string
	for _, n := range m.puller.LocalCandidates(ref) {
		names = append(names, n.Name())
	}
	return names
}

// List returns all images, ordered by id.
func (m *Manager) List() []Image { return slices.Clone(m.now.Load().list) }

// FSUsage returns what images and the containers' writable layers take, from
// records and past measurements.
func (m *Manager) FSUsage(context.Context) (images, containers FSUsage, err error) {
	images = FSUsage{Mountpoint: m.cfg.Root, Time: time.Now()}
	images.Bytes, images.Inodes = m.layers.Total()
	for _, img := range m.now.Load().all {
		images.Bytes += uint64(len(img.RawConfig))
		images.Inodes += 4 // its directory, and the files in it
	}
	written := m.rootfs.Total()
	containers = FSUsage{Mountpoint: m.cfg.Root, Time: written.At, Bytes: written.Bytes, Inodes: written.Inodes}
	return images, containers, nil
}

// RootFSUsage returns the last measured size of a container's writable layer,
// zero before the first measurement. It never waits for one; it makes the next
// one include this container. ErrNotFound when there is no such layer.
func (m *Manager) RootFSUsage(containerID string) (bytes, inodes uint64, err error) {
	u, err := m.rootfs.Usage(containerID)
	return u.Bytes, u.Inodes, err
}
