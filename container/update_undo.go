package container

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/oomscore"
	"github.com/criserver/criserver/oci"
)

// savedLimits are the limits from before an update. They are set again when the update
// fails, or by the next daemon if the daemon dies during the update.
type savedLimits struct {
	Limits []cgroup.Limit `json:"limits,omitempty"`
	// ScopeLimits are the limits of the scope of the container, if its processes are in a
	// cgroup below the scope.
	ScopeLimits []cgroup.Limit `json:"scopeLimits,omitempty"`
	// OOMScoreAdj is the oom_score_adj of the first process, or nil if the update does not
	// change it.
	OOMScoreAdj *int `json:"oomScoreAdj,omitempty"`
}

// saveLimits reads the limits that the update may change.
func (m *Manager) saveLimits(s *Snapshot, update *oci.Update) (*savedLimits, error) {
	if len(update.Hugepages) > 0 {
		if err := m.cfg.Cgroups.EnableHugetlb(s.ProcessCgroup); err != nil {
			return nil, err
		}
	}
	var unified []string
	if update.Resources != nil {
		unified = slices.Collect(maps.Keys(update.Resources.Unified))
	}
	saved := &savedLimits{}
	var err error
	if saved.Limits, err = m.cfg.Cgroups.Limits(s.ProcessCgroup, unified...); err != nil {
		return nil, err
	}
	if s.ProcessCgroup != s.CgroupPath {
		if saved.ScopeLimits, err = m.cfg.Cgroups.Limits(s.CgroupPath, unified...); err != nil {
			return nil, err
		}
	}
	if update.OOMScoreAdj != nil {
		adj, err := oomscore.Get(s.PID)
		if err != nil {
			return nil, err
		}
		saved.OOMScoreAdj = &adj
	}
	return saved, nil
}

// undoUpdate sets the saved limits. They stay in the state file until all of them are
// set, so that a new daemon tries again.
func (m *Manager) undoUpdate(ctx context.Context, c *container, s *Snapshot, saved *savedLimits) error {
	if c.runtime.SystemdCgroup {
		// The runtime changes the properties of the systemd unit. If only the files of the
		// cgroup were changed, the next reload of systemd would set the failed values again.
		if res, err := m.settings.Load().Builder.FullResources(s.Resources); err == nil {
			if err := c.runtime.Update(ctx, c.id, res); err != nil {
				c.log().WithError(err).Warn("reset the limits of the systemd unit after a failed update")
			}
		}
	}
	err := errors.Join(
		m.cfg.Cgroups.SetLimits(s.CgroupPath, saved.ScopeLimits), m.cfg.Cgroups.SetLimits(s.ProcessCgroup, saved.Limits),
	)
	if saved.OOMScoreAdj != nil {
		// ErrFailedPrecondition means that the first process has exited.
		if oomErr := m.setOOMScoreAdj(s, *saved.OOMScoreAdj); !errdefs.IsFailedPrecondition(oomErr) {
			err = errors.Join(err, oomErr)
		}
	}
	if err != nil {
		return fmt.Errorf("undo: %w", err)
	}
	return c.commit(func(s *status) error { s.Undo = nil; return nil })
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
