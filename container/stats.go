package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"time"

	"github.com/criserver/criserver/internal/cgroup"
)

// Stats are the stats of a container at one moment.
type Stats struct {
	Container *Snapshot
	// Usage is nil for a container without processes.
	Usage *cgroup.Usage
	Layer LayerUsage
}

// LayerUsage is the last measured size of a writable layer.
type LayerUsage struct {
	// Mountpoint is a directory on the file system of the layer, as in ImageFsInfo. It is
	// not the mount point of the overlay: the kubelet looks for the disk of the mount
	// point, and reports no stats at all if there is none.
	Mountpoint    string
	Time          time.Time
	Bytes, Inodes uint64
}

// statsTimeout limits the request for the stats of a guest.
const statsTimeout = 30 * time.Second

// Stats returns the stats of one container. For a container that is not running these
// are only the stats of the writable layer.
func (m *Manager) Stats(id string) (Stats, error) {
	c, err := m.find(id)
	if err != nil {
		return Stats{}, fmt.Errorf("stats of container: %w", err)
	}
	return m.stats(c)
}

// StatsOf returns the stats of the running containers that match. It reads the stats of
// a container when the iteration reaches the container, and leaves out containers that
// have exited since.
func (m *Manager) StatsOf(match func(*Snapshot) bool) iter.Seq[Stats] {
	return func(yield func(Stats) bool) {
		for _, c := range m.runningContainers(match) {
			s, err := m.stats(c)
			if err != nil {
				c.log().WithError(err).Warn("read the stats of the container")
				continue
			}
			if s.Usage != nil && !yield(s) {
				return
			}
		}
	}
}

func (m *Manager) runningContainers(match func(*Snapshot) bool) []*container {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var list []*container
	for _, c := range m.containers {
		if s := c.snap.Load(); s != nil && s.State == Running && match(s) {
			list = append(list, c)
		}
	}
	return list
}

func (m *Manager) stats(c *container) (Stats, error) {
	s := Stats{Container: c.snap.Load(), Layer: m.layerUsage(c)}
	if s.Container.State == Exited || s.Container.CgroupPath == "" {
		return s, nil
	}
	u, err := c.meter.Read(func() (cgroup.Stats, error) { return m.readUsage(c) })
	switch {
	case errors.Is(err, fs.ErrNotExist): // the container is exiting
		return s, nil
	case err != nil:
		return Stats{}, fmt.Errorf("stats of container %q: %w", short(c.id), err)
	}
	s.Usage = &u
	return s, nil
}

// readUsage reads the cgroup of a container, or asks its guest, because the cgroup of a
// container in a guest has no processes.
func (m *Manager) readUsage(c *container) (cgroup.Stats, error) {
	if !c.runtime.Guest {
		return m.cfg.Cgroups.Stats(c.snap.Load().ProcessCgroup)
	}
	ctx, cancel := context.WithTimeout(context.Background(), statsTimeout)
	defer cancel()
	return c.runtime.GuestStats(ctx, c.id)
}

func (m *Manager) layerUsage(c *container) LayerUsage {
	u := LayerUsage{Mountpoint: m.cfg.LayerRoot, Time: time.Now()}
	if m.cfg.Usage == nil {
		return u
	}
	var err error
	if u.Bytes, u.Inodes, err = m.cfg.Usage(c.id); err != nil {
		c.log().WithError(err).Debug("the size of the writable layer is unknown")
	}
	return u
}
