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

// Stats are the figures of a container at one moment.
type Stats struct {
	Container *Snapshot
	// Usage is nil for a container that has no processes.
	Usage *cgroup.Usage
	Layer LayerUsage
}

// LayerUsage is the size of a writable layer as it was last measured.
type LayerUsage struct {
	// Mountpoint tells the file system that the layer takes its space from, as
	// ImageFsInfo does for all of them. The overlay mount would not do: the
	// kubelet looks for a disk behind it, and without one has no figures at all.
	Mountpoint    string
	Time          time.Time
	Bytes, Inodes uint64
}

// Stats returns the figures of one container. One that does not run has the
// writable layer only.
func (m *Manager) Stats(id string) (Stats, error) {
	c, err := m.find(id)
	if err != nil {
		return Stats{}, fmt.Errorf("stats of container: %w", err)
	}
	return m.stats(c)
}

// StatsOf returns the figures of the running containers that match, read as
// they are asked for. What has just ended is left out.
func (m *Manager) StatsOf(match func(*Snapshot) bool) iter.Seq[Stats] {
	return func(yield func(Stats) bool) {
		for _, c := range m.running(match) {
			s, err := m.stats(c)
			if err != nil {
				c.log().WithError(err).Warn("figures of the container cannot be read")
				continue
			}
			if s.Usage != nil && !yield(s) {
				return
			}
		}
	}
}

func (m *Manager) running(match func(*Snapshot) bool) []*container {
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
	s := Stats{Container: c.snap.Load(), Layer: m.layer(c)}
	if s.Container.State == Exited || s.Container.CgroupPath == "" {
		return s, nil
	}
	u, err := c.meter.Read(func() (cgroup.Stats, error) { return m.figures(c) })
	switch {
	case errors.Is(err, fs.ErrNotExist): // it is just ending
		return s, nil
	case err != nil:
		return Stats{}, fmt.Errorf("stats of container %q: %w", short(c.id), err)
	}
	s.Usage = &u
	return s, nil
}

// figures are those of the container's cgroup, in which a guest keeps nothing.
func (m *Manager) figures(c *container) (cgroup.Stats, error) {
	if !c.runtime.Guest {
		return m.cfg.Cgroups.Stats(c.snap.Load().ProcessCgroup)
	}
	ctx, cancel := context.WithTimeout(context.Background(), statsTimeout)
	defer cancel()
	return c.runtime.GuestStats(ctx, c.id)
}

// statsTimeout bounds the question to a guest.
const statsTimeout = 30 * time.Second

func (m *Manager) layer(c *container) LayerUsage {
	u := LayerUsage{Mountpoint: m.cfg.LayerRoot, Time: time.Now()}
	if m.cfg.Usage == nil {
		return u
	}
	var err error
	if u.Bytes, u.Inodes, err = m.cfg.Usage(c.id); err != nil {
		c.log().WithError(err).Debug("size of the writable layer is unknown")
	}
	return u
}
