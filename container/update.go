package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// updateTimeout bounds an update, which the request cannot cancel: cut off, it
// would have to be undone, and the caller who comes again wants it done.
const updateTimeout = time.Minute

// UpdateResources changes the limits of a created or running container; fields
// that are 0 or empty stay as they are. It is done as a whole or not at all
// (CRI, UpdateContainerResources): what was written when a part of it fails is
// put back. Errors: ErrInvalidArgument before anything is done;
// ErrFailedPrecondition for a container that has ended, or that uses more memory
// than it shall have.
func (m *Manager) UpdateResources(ctx context.Context, id string, r *cri.LinuxContainerResources) (err error) {
	c, err := m.find(id)
	if err != nil {
		return fmt.Errorf("update container: %w", err)
	}
	// Nobody is asked about what is refused anyway.
	if err := m.cfg.Builder.CheckResources("linux", r); err != nil {
		return fmt.Errorf("update container %q: %w", short(c.id), err)
	}
	var others func(context.Context)
	defer func() { // without the lock
		if err == nil && others != nil {
			others(ctx)
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
	if err := c.mustUpdate(); err != nil {
		return fmt.Errorf("update container %q: %w", short(c.id), err)
	}
	limits, others, err := m.consultUpdate(ctx, s, r)
	if err == nil {
		err = m.setLimits(ctx, c, s, limits)
	}
	if err != nil {
		return fmt.Errorf("update container %q: %w", short(c.id), err)
	}
	c.log().Info("container updated")
	m.tellUpdated(ctx, c)
	return nil
}

// setLimits is called with the operation lock held.
func (m *Manager) setLimits(ctx context.Context, c *container, s *Snapshot, l Limits) error {
	if err := c.mustUpdate(); err != nil {
		return err // of one that a plugin names
	}
	plan, err := m.cfg.Builder.Update(s.Resources, l.CRI)
	if err != nil {
		return err
	}
	plan.Overlay(l.Extra)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), updateTimeout)
	defer cancel()
	if err := m.update(ctx, c, s, plan, l.Extra); err != nil {
		if init, _ := c.refs(); !init.Alive() {
			err = fmt.Errorf("it has ended meanwhile: %w", errors.Join(errdefs.ErrFailedPrecondition, err))
		}
		return err
	}
	for _, w := range plan.Warnings {
		c.log().Warn(w)
	}
	return nil
}

// undo is what to put back when an update fails, or when the daemon dies amid it.
type undo struct {
	Limits []cgroup.Limit `json:"limits,omitempty"`
	// ScopeLimits are the limits of the container's scope, if its processes are in
	// a cgroup below the scope.
	ScopeLimits []cgroup.Limit `json:"scopeLimits,omitempty"`
	// OOMScoreAdj is that of the first process; nil when it is not to change.
	OOMScoreAdj *int `json:"oomScoreAdj,omitempty"`
}

// update is called with the operation lock held.
func (m *Manager) update(ctx context.Context, c *container, s *Snapshot, plan *oci.Update, extra *specs.LinuxResources) error {
	if err := m.fits(s, plan); err != nil {
		return err
	}
	before, err := m.saveLimits(s, plan)
	if err != nil {
		return err
	}
	if err := c.commit(func(f *facts) error { f.Undo = before; return nil }); err != nil {
		return err
	}
	err = m.apply(ctx, c, s, plan)
	if err == nil {
		err = c.commit(func(f *facts) error { f.Undo = nil; f.addExtra(extra); return f.setResources(plan.Now) })
	}
	if err != nil {
		return errors.Join(m.explain(s, plan, err), m.putBack(ctx, c, s, before))
	}
	return nil
}

// saveLimits reads what the update may change.
func (m *Manager) saveLimits(s *Snapshot, plan *oci.Update) (*undo, error) {
	if len(plan.Hugepages) > 0 {
		if err := m.cfg.Cgroups.EnableHugetlb(s.ProcessCgroup); err != nil {
			return nil, err
		}
	}
	var unified []string
	if plan.Resources != nil {
		unified = slices.Collect(maps.Keys(plan.Resources.Unified))
	}
	u := &undo{}
	var err error
	if u.Limits, err = m.cfg.Cgroups.Limits(s.ProcessCgroup, unified...); err != nil {
		return nil, err
	}
	if s.ProcessCgroup != s.CgroupPath {
		if u.ScopeLimits, err = m.cfg.Cgroups.Limits(s.CgroupPath, unified...); err != nil {
			return nil, err
		}
	}
	if plan.OOMScoreAdj != nil {
		adj, err := oomScoreAdj(s.PID)
		if err != nil {
			return nil, err
		}
		u.OOMScoreAdj = &adj
	}
	return u, nil
}

func (m *Manager) apply(ctx context.Context, c *container, s *Snapshot, plan *oci.Update) error {
	if plan.Resources != nil {
		if err := c.runtime.Update(ctx, c.id, plan.Resources); err != nil {
			return err
		}
	}
	if err := m.setHugepages(c, plan.Hugepages); err != nil {
		return err
	}
	if plan.OOMScoreAdj != nil {
		return m.setOOMScoreAdj(s, *plan.OOMScoreAdj)
	}
	return nil
}

// putBack undoes an update. What is put back stays on record as something to be
// put back until that has been done, so that a new daemon tries it again.
func (m *Manager) putBack(ctx context.Context, c *container, s *Snapshot, before *undo) error {
	if c.runtime.SystemdCgroup {
		// The runtime changes the properties of the unit. Files of the cgroup alone
		// would have the failed values again after the next reload of systemd.
		if res, err := m.cfg.Builder.Restate(s.Resources); err == nil {
			if err := c.runtime.Update(ctx, c.id, res); err != nil {
				c.log().WithError(err).Warn("the runtime does not take the former limits")
			}
		}
	}
	err := errors.Join(
		m.cfg.Cgroups.SetLimits(s.CgroupPath, before.ScopeLimits), m.cfg.Cgroups.SetLimits(s.ProcessCgroup, before.Limits),
	)
	if before.OOMScoreAdj != nil {
		if oomErr := m.setOOMScoreAdj(s, *before.OOMScoreAdj); !errdefs.IsFailedPrecondition(oomErr) {
			err = errors.Join(err, oomErr) // else there is no process left
		}
	}
	if err != nil {
		return fmt.Errorf("undo: %w", err)
	}
	return c.commit(func(f *facts) error { f.Undo = nil; return nil })
}

// resumeUpdate undoes an update that a daemon before did not finish: nobody was
// told that it was done.
func (m *Manager) resumeUpdate(ctx context.Context, c *container) {
	c.mu.Lock()
	before := c.facts.Undo
	c.mu.Unlock()
	s := c.snap.Load()
	if before == nil || s == nil || s.State == Exited {
		return
	}
	if err := m.putBack(ctx, c, s, before); err != nil {
		c.log().WithError(err).Error("an update that was cut off is not undone")
		return
	}
	c.log().Info("an update that was cut off is undone")
}

// fits refuses a limit of memory that would make the kernel kill.
func (m *Manager) fits(s *Snapshot, plan *oci.Update) error {
	limit := memoryLimit(plan)
	if limit <= 0 || !m.cfg.Cgroups.V2() {
		return nil // on v1 the kernel refuses by itself
	}
	return tooSmall(limit, m.cfg.Cgroups.Reclaim(s.ProcessCgroup, uint64(limit)))
}

// explain adds what the runtime's words may not say.
func (m *Manager) explain(s *Snapshot, plan *oci.Update, err error) error {
	if limit := memoryLimit(plan); limit > 0 {
		return errors.Join(tooSmall(limit, m.cfg.Cgroups.Reclaim(s.ProcessCgroup, uint64(limit))), err)
	}
	return err
}

func tooSmall(limit int64, used uint64) error {
	if used <= uint64(limit) {
		return nil
	}
	return fmt.Errorf("linux.memory_limit_in_bytes %d must not be below what the container uses, %d, and cannot be made to give back: %w",
		limit, used, errdefs.ErrFailedPrecondition)
}

func memoryLimit(plan *oci.Update) int64 {
	if plan.Resources == nil || plan.Resources.Memory == nil || plan.Resources.Memory.Limit == nil {
		return 0
	}
	return *plan.Resources.Memory.Limit
}

// setHugepages limits hugepages where no runtime does. Without a cgroup for
// them, as when the runtime uses none, nothing can be limited.
func (m *Manager) setHugepages(c *container, limits map[string]uint64) error {
	err := m.cfg.Cgroups.SetHugetlb(c.snap.Load().ProcessCgroup, limits)
	if errors.Is(err, fs.ErrNotExist) {
		c.log().WithError(err).Warn("hugepage_limits are not enforced")
		return nil
	}
	return err
}

// commit alters the facts if that can be written, and else leaves them.
func (c *container) commit(alter func(*facts) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.facts
	if err := alter(&next); err != nil {
		return err
	}
	if err := next.write(c.dir); err != nil {
		return err
	}
	c.facts = next
	c.publish()
	return nil
}
