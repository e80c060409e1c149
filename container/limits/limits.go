// Package limits changes the limits of a running container, and resets them after a failure. It uses the OCI runtime,
// and the files of the cgroup and the processes for limits that the runtime does not set. Package limits does not
// store anything: its caller stores the Saved limits before a change, so that a later daemon can reset the limits.
package limits

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/oomscore"
	"github.com/criserver/criserver/oci"
	"github.com/criserver/criserver/oci/runtime"
	"github.com/sirupsen/logrus"
)

// Cgroups controls the limits of cgroups. Paths are absolute in the hierarchy. *cgroup.Tree implements Cgroups.
type Cgroups interface {
	// V2 reports whether the controllers are on the unified hierarchy.
	V2() bool
	// Pids returns the processes in a cgroup and in the cgroups below it.
	Pids(path string) ([]int, error)
	// Limits reads the limits of a cgroup, including these files of the unified hierarchy.
	// SetLimits sets such limits.
	Limits(path string, unified ...string) ([]cgroup.Limit, error)
	SetLimits(path string, limits []cgroup.Limit) error
	// EnableHugetlb enables the hugetlb controller for a cgroup, and SetHugetlb sets limits
	// of hugepages.
	EnableHugetlb(path string) error
	SetHugetlb(path string, limits map[string]uint64) error
	// Reclaim tries to reduce the memory use to limit, and returns the memory use.
	Reclaim(path string, limit uint64) (used uint64)
}

// Target is the container whose limits change.
type Target struct {
	ID      string
	Runtime *runtime.Runtime
	PID     int // of the first process
	// Cgroup is the cgroup of the container, and ProcessCgroup is the cgroup of its processes, which has the limits. The
	// two differ if the runtime puts the processes into a cgroup below the cgroup of the container.
	Cgroup, ProcessCgroup string
	Cgroups               Cgroups
	Log                   *logrus.Entry
}

// Check refuses a memory limit at which the kernel would kill processes of the
// container. The error is ErrFailedPrecondition.
func (t *Target) Check(update *oci.Update) error {
	limit := memoryLimit(update)
	if limit <= 0 || !t.Cgroups.V2() {
		return nil // with cgroup v1, the kernel itself refuses such a limit
	}
	return t.checkMemoryUse(limit)
}

// Apply sets the limits of an update. If it fails, some of the limits can be set.
func (t *Target) Apply(ctx context.Context, update *oci.Update) error {
	if update.Resources != nil {
		if err := t.Runtime.Update(ctx, t.ID, update.Resources); err != nil {
			return err
		}
	}
	if err := t.SetHugepages(update.Hugepages); err != nil {
		return err
	}
	if update.OOMScoreAdj != nil {
		return t.SetOOMScoreAdj(*update.OOMScoreAdj)
	}
	return nil
}

// Explain adds the memory use to an error of Apply, if that is the cause.
func (t *Target) Explain(update *oci.Update, err error) error {
	if limit := memoryLimit(update); limit > 0 {
		return errors.Join(t.checkMemoryUse(limit), err)
	}
	return err
}

func (t *Target) checkMemoryUse(limit int64) error {
	used := t.Cgroups.Reclaim(t.ProcessCgroup, uint64(limit))
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

// SetHugepages sets the limits of hugepages on hosts where no runtime does it. If the
// container has no cgroup for hugepages, because the runtime does not use one, the
// limits are not enforced.
func (t *Target) SetHugepages(limits map[string]uint64) error {
	err := t.Cgroups.SetHugetlb(t.ProcessCgroup, limits)
	if errors.Is(err, fs.ErrNotExist) {
		t.Log.WithError(err).Warn("hugepage_limits are not enforced")
		return nil
	}
	return err
}

// SetOOMScoreAdj changes the oom_score_adj of the processes of a container. Processes that have changed their value
// themselves keep it. ErrFailedPrecondition means that the first process has exited.
func (t *Target) SetOOMScoreAdj(adj int) error {
	return oomscore.SetInherited(t.PID, func() ([]int, error) { return t.Cgroups.Pids(t.Cgroup) }, adj)
}
