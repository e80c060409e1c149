package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// updateTimeout limits an update. The request cannot cancel it: an interrupted update
// would have to be undone, and the caller would then ask for it again.
const updateTimeout = time.Minute

// UpdateResources changes the limits of a created or running container. Fields that are
// 0 or empty do not change. As the CRI requires for UpdateContainerResources, an update
// that fails changes nothing: the limits that were set before the failure are reset.
// Errors: ErrInvalidArgument for invalid limits; ErrFailedPrecondition for a container
// that has exited, or that uses more memory than the new limit.
func (m *Manager) UpdateResources(ctx context.Context, id string, r *cri.LinuxContainerResources) (err error) {
	c, err := m.find(id)
	if err != nil {
		return fmt.Errorf("update container: %w", err)
	}
	// Plugins receive no invalid request.
	builder := m.settings.Load().Builder
	if err := builder.CheckResources("linux", r); err != nil {
		return fmt.Errorf("update container %q: %w", short(c.id), err)
	}
	var otherUpdates func(context.Context)
	defer func() { // after the unlock
		if err == nil && otherUpdates != nil {
			otherUpdates(ctx)
		}
	}()
	unlock, err := m.ops.Lock(ctx, c.id)
	if err != nil {
		return fmt.Errorf("update container %q: %w", short(c.id), err)
	}
	defer unlock()
	s := c.snap.Load()
	if s.State != Created && s.State != Running {
		return errWrongState("update", s)
	}
	if err := c.checkUpdatable(); err != nil {
		return fmt.Errorf("update container %q: %w", short(c.id), err)
	}
	limits := Limits{CRI: r}
	if plugins := m.cfg.Plugins; plugins != nil {
		limits, otherUpdates, err = plugins.Update(ctx, s, limits)
	}
	if err == nil {
		err = m.setLimits(ctx, builder, c, s, limits)
	}
	if err != nil {
		return fmt.Errorf("update container %q: %w", short(c.id), err)
	}
	c.log().Info("container updated")
	m.notify(ctx, c.snap.Load(), Plugins.Updated)
	return nil
}

// SetLimits changes the limits of a container for a plugin. Unlike UpdateResources, it
// does not ask the plugins.
func (m *Manager) SetLimits(ctx context.Context, id string, l Limits) error {
	c, err := m.find(id)
	if err != nil {
		return fmt.Errorf("set limits of container: %w", err)
	}
	unlock, err := m.ops.Lock(ctx, c.id)
	if err != nil {
		return fmt.Errorf("set limits of container %q: %w", short(c.id), err)
	}
	defer unlock()
	s := c.snap.Load()
	if s.State != Created && s.State != Running {
		return errWrongState("set limits of", s)
	}
	if err := m.setLimits(ctx, m.settings.Load().Builder, c, s, l); err != nil {
		return fmt.Errorf("set limits of container %q: %w", short(c.id), err)
	}
	return nil
}

// setLimits sets limits. The caller holds the operation lock.
func (m *Manager) setLimits(ctx context.Context, builder *oci.Builder, c *container, s *Snapshot, l Limits) error {
	if err := c.checkUpdatable(); err != nil {
		return err
	}
	update, err := builder.Update(s.Resources, l.CRI)
	if err != nil {
		return err
	}
	update.Merge(l.Extra)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), updateTimeout)
	defer cancel()
	if err := m.update(ctx, c, s, update, l.Extra); err != nil {
		if init, _ := c.refs(); !init.Alive() {
			err = fmt.Errorf("the container has exited during the update: %w", errors.Join(errdefs.ErrFailedPrecondition, err))
		}
		return err
	}
	for _, w := range update.Warnings {
		c.log().Warn(w)
	}
	return nil
}

// update applies an update, and undoes it if it fails. The caller holds the operation
// lock.
func (m *Manager) update(ctx context.Context, c *container, s *Snapshot, update *oci.Update, extra *specs.LinuxResources) error {
	if err := m.checkMemoryFits(s, update); err != nil {
		return err
	}
	saved, err := m.saveLimits(s, update)
	if err != nil {
		return err
	}
	if err := c.commit(func(s *status) error { s.Undo = saved; return nil }); err != nil {
		return err
	}
	err = m.applyUpdate(ctx, c, s, update)
	if err == nil {
		err = c.commit(func(s *status) error { s.Undo = nil; s.addExtra(extra); return s.setResources(update.Now) })
	}
	if err != nil {
		return errors.Join(m.explainFailure(s, update, err), m.undoUpdate(ctx, c, s, saved))
	}
	return nil
}

func (m *Manager) applyUpdate(ctx context.Context, c *container, s *Snapshot, update *oci.Update) error {
	if update.Resources != nil {
		if err := c.runtime.Update(ctx, c.id, update.Resources); err != nil {
			return err
		}
	}
	if err := m.setHugepages(c, update.Hugepages); err != nil {
		return err
	}
	if update.OOMScoreAdj != nil {
		return m.setOOMScoreAdj(s, *update.OOMScoreAdj)
	}
	return nil
}

// checkMemoryFits refuses a memory limit at which the kernel would kill processes of the
// container.
func (m *Manager) checkMemoryFits(s *Snapshot, update *oci.Update) error {
	limit := memoryLimit(update)
	if limit <= 0 || !m.cfg.Cgroups.V2() {
		return nil // with cgroup v1, the kernel itself refuses such a limit
	}
	return checkMemoryUse(limit, m.cfg.Cgroups.Reclaim(s.ProcessCgroup, uint64(limit)))
}

// explainFailure adds the memory use to the error of the runtime, if that is the cause.
func (m *Manager) explainFailure(s *Snapshot, update *oci.Update, err error) error {
	if limit := memoryLimit(update); limit > 0 {
		return errors.Join(checkMemoryUse(limit, m.cfg.Cgroups.Reclaim(s.ProcessCgroup, uint64(limit))), err)
	}
	return err
}

func checkMemoryUse(limit int64, used uint64) error {
	if used <= uint64(limit) {
		return nil
	}
	return fmt.Errorf("linux.memory_limit_in_bytes %d must not be below what the container uses, %d bytes, which the kernel cannot reclaim: %w",
		limit, used, errdefs.ErrFailedPrecondition)
}

// memoryLimit returns 0 if the update does not change the memory limit.
func memoryLimit(update *oci.Update) int64 {
	if update.Resources == nil || update.Resources.Memory == nil || update.Resources.Memory.Limit == nil {
		return 0
	}
	return *update.Resources.Memory.Limit
}

// setHugepages sets the limits of hugepages on hosts where no runtime does it. If the
// container has no cgroup for hugepages, because the runtime does not use one, the
// limits are not enforced.
func (m *Manager) setHugepages(c *container, limits map[string]uint64) error {
	err := m.cfg.Cgroups.SetHugetlb(c.snap.Load().ProcessCgroup, limits)
	if errors.Is(err, fs.ErrNotExist) {
		c.log().WithError(err).Warn("hugepage_limits are not enforced")
		return nil
	}
	return err
}
