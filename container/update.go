package container

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/container/limits"
	"github.com/criserver/criserver/container/record"
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
	wanted := Limits{CRI: r}
	if plugins := m.cfg.Plugins; plugins != nil {
		wanted, otherUpdates, err = plugins.Update(ctx, s, wanted)
	}
	if err == nil {
		err = m.setLimits(ctx, builder, c, s, wanted)
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
	t := m.limitsTarget(c, s)
	if err := t.Check(update); err != nil {
		return err
	}
	saved, err := t.Save(update)
	if err != nil {
		return err
	}
	if err := c.commit(func(s *record.Status) error { s.Undo = saved; return nil }); err != nil {
		return err
	}
	err = t.Apply(ctx, update)
	if err == nil {
		err = c.commit(func(s *record.Status) error { s.Undo = nil; s.AddExtra(extra); return s.SetResources(update.Now) })
	}
	if err != nil {
		return errors.Join(t.Explain(update, err), m.undoUpdate(ctx, c, s, saved))
	}
	return nil
}

// limitsTarget returns a container for a change of its limits.
func (m *Manager) limitsTarget(c *container, s *Snapshot) *limits.Target {
	return &limits.Target{
		ID: c.id, Runtime: c.runtime, PID: s.PID, Cgroup: s.CgroupPath, ProcessCgroup: s.ProcessCgroup, Cgroups: m.cfg.Cgroups, Log: c.log(),
	}
}

// undoUpdate sets the saved limits. They stay in the state file until all of them are
// set, so that a new daemon tries again.
func (m *Manager) undoUpdate(ctx context.Context, c *container, s *Snapshot, saved *limits.Saved) error {
	var unit *specs.LinuxResources
	if c.runtime.SystemdCgroup {
		if full, err := m.settings.Load().Builder.FullResources(s.Resources); err == nil {
			unit = full
		}
	}
	if err := m.limitsTarget(c, s).Reset(ctx, saved, unit); err != nil {
		return err
	}
	return c.commit(func(s *record.Status) error { s.Undo = nil; return nil })
}

// undoInterruptedUpdate undoes an update that an earlier daemon did not complete. The
// caller of that update has not received a success.
func (m *Manager) undoInterruptedUpdate(ctx context.Context, c *container) {
	c.mu.Lock()
	saved := c.status.Undo
	c.mu.Unlock()
	s := c.snap.Load()
	if saved == nil || s == nil || s.State == Exited {
		return
	}
	if err := m.undoUpdate(ctx, c, s, saved); err != nil {
		c.log().WithError(err).Error("undo an interrupted update of the container")
		return
	}
	c.log().Info("undid an interrupted update of the container")
}
