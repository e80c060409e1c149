package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/criserver/criserver/internal/cgroup"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// statsAge is for how long figures are handed out again: many callers ask for
// them at nearly the same time.
const statsAge = time.Second

// figures are a container's latest ones. Guarded by its mu.
type figures struct {
	last  cgroup.Stats
	cores uint64 // nanoseconds of CPU a second, over the time before last
	stats *cri.ContainerStats
}

// Stats returns the figures of one container. One that does not run has
// attributes and the writable layer only.
func (m *Manager) Stats(_ context.Context, id string) (*cri.ContainerStats, error) {
	c, err := m.find(id)
	if err != nil {
		return nil, fmt.Errorf("stats of container: %w", err)
	}
	s, err := m.stats(c)
	if err != nil {
		return nil, fmt.Errorf("stats of container %q: %w", short(c.id), err)
	}
	return s, nil
}

// AllStats returns the figures of all running containers.
func (m *Manager) AllStats(context.Context) ([]*cri.ContainerStats, error) {
	m.mu.RLock()
	list := make([]*container, 0, len(m.containers))
	for _, c := range m.containers {
		if s := c.snap.Load(); s != nil && s.State == Running {
			list = append(list, c)
		}
	}
	m.mu.RUnlock()
	all := make([]*cri.ContainerStats, 0, len(list))
	for _, c := range list {
		s, err := m.stats(c)
		if err != nil {
			c.log().WithError(err).Warn("figures of the container cannot be read")
			continue
		}
		all = append(all, s)
	}
	return all, nil
}

// stats answers from what was read a moment ago or reads anew. The answer is
// shared and must not be written to.
func (m *Manager) stats(c *container) (*cri.ContainerStats, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := &c.figures
	running := c.facts.End == nil
	if f.stats != nil && time.Since(f.last.Time) < statsAge && running {
		return f.stats, nil
	}
	s := &cri.ContainerStats{Attributes: attributes(c), WritableLayer: m.writableLayer(c)}
	if running {
		now, err := m.cfg.Cgroups.Stats(c.rec.CgroupPath)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it is just ending
		case err != nil:
			return nil, err
		default:
			f.sample(now)
			f.fill(s)
			f.stats = s
		}
	}
	return s, nil
}

// sample takes new figures; the rate is over the time since those before.
func (f *figures) sample(now cgroup.Stats) {
	if took := now.Time.Sub(f.last.Time); !f.last.Time.IsZero() && took > 0 && now.CPUUsage >= f.last.CPUUsage {
		f.cores = uint64(float64(now.CPUUsage-f.last.CPUUsage) / took.Seconds())
	}
	f.last = now
}

func (f *figures) fill(s *cri.ContainerStats) {
	t, mem := f.last.Time.UnixNano(), f.last.Memory
	s.Cpu = &cri.CpuUsage{Timestamp: t, UsageCoreNanoSeconds: value(f.last.CPUUsage), UsageNanoCores: value(f.cores)}
	s.Memory = &cri.MemoryUsage{
		Timestamp: t, WorkingSetBytes: value(mem.WorkingSet), UsageBytes: value(mem.Usage), RssBytes: value(mem.RSS),
		PageFaults: value(mem.PageFaults), MajorPageFaults: value(mem.MajorFault),
	}
	if mem.Limit > mem.WorkingSet {
		s.Memory.AvailableBytes = value(mem.Limit - mem.WorkingSet)
	}
	s.Swap = &cri.SwapUsage{Timestamp: t, SwapUsageBytes: value(mem.Swap)}
}

func attributes(c *container) *cri.ContainerAttributes {
	return &cri.ContainerAttributes{
		Id: c.id, Metadata: c.config.GetMetadata(), Labels: c.config.GetLabels(), Annotations: c.config.GetAnnotations(),
	}
}

func (m *Manager) writableLayer(c *container) *cri.FilesystemUsage {
	var bytes, inodes uint64
	if m.cfg.Usage != nil {
		var err error
		if bytes, inodes, err = m.cfg.Usage(c.id); err != nil {
			c.log().WithError(err).Debug("size of the writable layer is unknown")
			bytes, inodes = 0, 0
		}
	}
	return &cri.FilesystemUsage{
		Timestamp: time.Now().UnixNano(), FsId: &cri.FilesystemIdentifier{Mountpoint: c.rootfs()},
		UsedBytes: value(bytes), InodesUsed: value(inodes),
	}
}

func value(v uint64) *cri.UInt64Value { return &cri.UInt64Value{Value: v} }
