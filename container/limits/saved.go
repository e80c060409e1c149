package limits

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
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Saved are the limits from before an update. They are set again when the update
// fails, or by the next daemon if the daemon dies during the update.
type Saved struct {
	Limits []cgroup.Limit `json:"limits,omitempty"`
	// ScopeLimits are the limits of the scope of the container, if its processes are in a
	// cgroup below the scope.
	ScopeLimits []cgroup.Limit `json:"scopeLimits,omitempty"`
	// OOMScoreAdj is the oom_score_adj of the first process, or nil if the update does not
	// change it.
	OOMScoreAdj *int `json:"oomScoreAdj,omitempty"`
}

// Save reads the limits that the update may change.
func (t *Target) Save(update *oci.Update) (*Saved, error) {
	if len(update.Hugepages) > 0 {
		if err := t.Cgroups.EnableHugetlb(t.ProcessCgroup); err != nil {
			return nil, err
		}
	}
	var unified []string
	if update.Resources != nil {
		unified = slices.Collect(maps.Keys(update.Resources.Unified))
	}
	saved := &Saved{}
	var err error
	if saved.Limits, err = t.Cgroups.Limits(t.ProcessCgroup, unified...); err != nil {
		return nil, err
	}
	if t.ProcessCgroup != t.Cgroup {
		if saved.ScopeLimits, err = t.Cgroups.Limits(t.Cgroup, unified...); err != nil {
			return nil, err
		}
	}
	if update.OOMScoreAdj != nil {
		adj, err := oomscore.Get(t.PID)
		if err != nil {
			return nil, err
		}
		saved.OOMScoreAdj = &adj
	}
	return saved, nil
}

// Reset sets the saved limits. unit are the complete limits from before the update, for a container in a systemd unit,
// or nil.
func (t *Target) Reset(ctx context.Context, saved *Saved, unit *specs.LinuxResources) error {
	if unit != nil {
		// The runtime changes the properties of the systemd unit. If only the files of the
		// cgroup were changed, the next reload of systemd would set the failed values again.
		if err := t.Runtime.Update(ctx, t.ID, unit); err != nil {
			t.Log.WithError(err).Warn("reset the limits of the systemd unit after a failed update")
		}
	}
	err := errors.Join(
		t.Cgroups.SetLimits(t.Cgroup, saved.ScopeLimits), t.Cgroups.SetLimits(t.ProcessCgroup, saved.Limits),
	)
	if saved.OOMScoreAdj != nil {
		// ErrFailedPrecondition means that the first process has exited.
		if oomErr := t.SetOOMScoreAdj(*saved.OOMScoreAdj); !errdefs.IsFailedPrecondition(oomErr) {
			err = errors.Join(err, oomErr)
		}
	}
	if err != nil {
		return fmt.Errorf("undo: %w", err)
	}
	return nil
}
