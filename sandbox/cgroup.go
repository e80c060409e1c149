package sandbox

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/criserver/criserver/internal/cgroup"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/internal/systemd"
	"github.com/criserver/criserver/sandbox/podspec"
	cgroupsystemd "github.com/opencontainers/cgroups/systemd"
	"github.com/sirupsen/logrus"
)

// CgroupDriver says which program creates the cgroups of pods.
type CgroupDriver = podspec.CgroupDriver

// The cgroup drivers of the kubelet.
const (
	Cgroupfs = podspec.Cgroupfs
	Systemd  = podspec.Systemd
)

// Cgroups manages the cgroups of the host. Paths are absolute in the cgroup hierarchy.
type Cgroups interface {
	// Make creates a cgroup and its missing parents, and holds the cgroup until Release.
	Make(path string) error
	// Release ends the hold of Make. It removes the cgroups that Make created, if they are empty.
	Release(path string)
	// Remove removes an empty cgroup, whichever program created the cgroup.
	Remove(path string) error
	// Add moves a process into an existing cgroup.
	Add(path string, pid int) error
	// Stats reads the stats of a cgroup, which include all cgroups below it.
	Stats(path string) (cgroup.Stats, error)
	// Pids returns the processes in a cgroup and in all cgroups below it.
	Pids(path string) ([]int, error)
}

// Units manages the units of systemd. *systemd.Manager implements Units.
type Units interface {
	// StartScope moves a process into a new scope.
	StartScope(ctx context.Context, s systemd.Scope) error
	// Stop stops a unit. It returns nil if systemd does not know the unit.
	Stop(ctx context.Context, unit string) error
	// List returns the loaded units whose names match a glob pattern.
	List(ctx context.Context, pattern string) ([]string, error)
}

// cgroupParent returns the cgroup of a pod; with the systemd driver, the name of its slice. A pod that requests no
// cgroup parent gets a cgroup below the configured parent.
func (c Config) cgroupParent(id, requested string) string {
	switch {
	case requested != "":
		return requested
	case c.CgroupDriver == Systemd:
		return c.slicePrefix() + id + ".slice"
	}
	return path.Join("/", c.CgroupParent, cgroupName(id))
}

// slicePrefix returns the part before the id in the names of the slices that the daemon chooses for pods.
func (c Config) slicePrefix() string {
	return strings.TrimSuffix(path.Base(c.CgroupParent), ".slice") + "-pod"
}

// cgroupName returns the name of the cgroup that the daemon chooses for a pod with the cgroupfs driver.
func cgroupName(id string) string { return "pod-" + id }

// cgroupPath returns the path of a cgroup parent in the cgroup hierarchy. Each dash in the name of a slice stands for
// a level above the slice (systemd.slice(5)).
func cgroupPath(parent string) string {
	if !strings.HasSuffix(parent, ".slice") {
		return parent
	}
	full, err := cgroupsystemd.ExpandSlice(parent)
	if err != nil {
		return parent // not reached: the name of the slice was checked in the request
	}
	return full
}

// removeCgroup removes the cgroup that the daemon chose for the pod, and releases the cgroup that
// the entry holds. The name of a chosen cgroup has the id of the pod. Such a cgroup belongs to this
// pod even if an earlier daemon died before it could record that it had created the cgroup.
func (m *Manager) removeCgroup(ctx context.Context, e *entry) error {
	if path.Base(e.rec.CgroupParent) == cgroupName(e.rec.ID) {
		_, step := steps.Start(ctx, steps.CgroupRemove)
		err := m.cfg.Cgroups.Remove(e.rec.CgroupParent)
		if step.End(err); err != nil {
			return fmt.Errorf("remove cgroup: %w", err)
		}
	}
	if e.cgroup {
		m.cfg.Cgroups.Release(e.rec.CgroupParent)
		e.cgroup = false
	}
	return nil
}

// stopSlice stops the slice that the daemon chose for a pod. systemd created the slice for the first scope in it, and
// would keep the slice. A slice that the request named belongs to the kubelet and is not stopped.
func (m *Manager) stopSlice(ctx context.Context, r *record) error {
	if m.cfg.CgroupDriver != Systemd || !strings.HasSuffix(r.CgroupParent, "-pod"+r.ID+".slice") {
		return nil
	}
	ctx, step := steps.Start(ctx, steps.SystemdSlice)
	err := m.cfg.Units.Stop(ctx, r.CgroupParent)
	step.End(err)
	return err
}

// stopOrphanedSlices stops the slices of pods that no longer exist. Such slices remain if a daemon was killed or if its
// state was deleted. Another daemon may use the same parent, so a slice with processes is kept.
func (m *Manager) stopOrphanedSlices(ctx context.Context) {
	if m.cfg.CgroupDriver != Systemd {
		return
	}
	prefix := m.cfg.slicePrefix()
	found, err := m.cfg.Units.List(ctx, prefix+"*.slice")
	if err != nil {
		logrus.WithContext(ctx).WithError(err).Warn("cannot list the slices of pods")
		return
	}
	// The daemon creates the directory of a pod before its slice, so the directories must be listed after the slices.
	pods, err := listIDs(m.dirs.pods())
	if err != nil {
		logrus.WithContext(ctx).WithError(err).Warn("cannot list pods; slices without a pod may remain")
		return
	}
	for _, slice := range found {
		id := strings.TrimSuffix(strings.TrimPrefix(slice, prefix), ".slice")
		if !ids.Valid(id) || slices.Contains(pods, id) {
			continue
		}
		log := logrus.WithContext(ctx).WithField("slice", slice)
		if pids, err := m.cfg.Cgroups.Pids(cgroupPath(slice)); err != nil || len(pids) > 0 {
			log.WithError(err).WithField("processes", len(pids)).Warn("keep a slice without a pod, because it has processes")
			continue
		}
		if err := m.cfg.Units.Stop(ctx, slice); err != nil {
			log.WithError(err).Warn("cannot stop a slice without a pod")
			continue
		}
		log.Info("stopped a slice without a pod")
	}
}
