package sandbox

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/systemd"
	"github.com/sirupsen/logrus"
)

// pauseCgroup is the cgroup of a pod's pause with the cgroupfs driver. It is a
// child of the pod's cgroup, because on cgroup v2 a cgroup with children takes no
// processes itself.
func pauseCgroup(r *record) string {
	return path.Join(cgroupPath(r.CgroupParent), "criserver-pause-"+r.ID[:12])
}

// pauseUnit is the scope of a pod's pause with the systemd driver.
func pauseUnit(r *record) string { return "criserver-pause-" + r.ID + ".scope" }

// placePause moves the pause into the pod's cgroup. With the systemd driver only
// systemd makes cgroups there.
func (m *Manager) placePause(ctx context.Context, r *record) error {
	if m.cfg.CgroupDriver == Systemd {
		return m.cfg.Units.StartScope(ctx, systemd.Scope{
			Name: pauseUnit(r), Slice: r.CgroupParent, Description: "pause of pod " + r.ID, PID: r.Pause.PID,
		})
	}
	group := pauseCgroup(r)
	if err := m.cfg.Cgroups.Make(group); err != nil {
		return err
	}
	if err := m.cfg.Cgroups.Add(group, r.Pause.PID); err != nil {
		return fmt.Errorf("put pause into cgroup %s: %w", group, err)
	}
	return nil
}

// releasePause gives back the cgroup of an ended pause. systemd removes an empty
// scope by itself.
func (m *Manager) releasePause(r *record) {
	if m.cfg.CgroupDriver != Systemd {
		m.cfg.Cgroups.Release(pauseCgroup(r))
	}
}

// dropSlice stops the slice that the daemon chose for a pod. systemd made the
// slice for the first scope in it, and would keep the slice. A slice that the
// request named is the kubelet's.
func (m *Manager) dropSlice(ctx context.Context, r *record) error {
	if m.cfg.CgroupDriver != Systemd || !strings.HasSuffix(r.CgroupParent, "-pod"+r.ID+".slice") {
		return nil
	}
	return m.cfg.Units.Stop(ctx, r.CgroupParent)
}

// sweepSlices stops the slices of pods that are gone. A daemon that was killed,
// or whose state was lost, has left them behind. Another daemon may use the same
// parent, so a slice with a process in it stays.
func (m *Manager) sweepSlices(ctx context.Context) {
	if m.cfg.CgroupDriver != Systemd {
		return
	}
	prefix := slicePrefix(m.cfg)
	found, err := m.cfg.Units.List(ctx, prefix+"*.slice")
	if err != nil {
		logrus.WithContext(ctx).WithError(err).Warn("slices without a pod could not be looked for")
		return
	}
	// A pod has its directory before it has its slice, so this list comes second.
	pods, err := known(m.dirs.pods())
	if err != nil {
		logrus.WithContext(ctx).WithError(err).Warn("slices without a pod could not be looked for")
		return
	}
	for _, slice := range found {
		id := strings.TrimSuffix(strings.TrimPrefix(slice, prefix), ".slice")
		if !ids.Valid(id) || slices.Contains(pods, id) {
			continue
		}
		log := logrus.WithContext(ctx).WithField("slice", slice)
		if pids, err := m.cfg.Cgroups.Pids(cgroupPath(slice)); err != nil || len(pids) > 0 {
			log.WithError(err).WithField("processes", len(pids)).Warn("a slice without a pod has processes and is kept")
			continue
		}
		if err := m.cfg.Units.Stop(ctx, slice); err != nil {
			log.WithError(err).Warn("a slice without a pod could not be stopped")
			continue
		}
		log.Info("slice without a pod stopped")
	}
}
