package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/internal/systemd"
	"github.com/criserver/criserver/internal/userns"
	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/sirupsen/logrus"
)

// pauseEnded is the reason why a pod is not ready after its pause process has ended.
const pauseEnded = "its pause process has ended"

// pauseCgroup returns the cgroup of the pause with the cgroupfs driver. It is a child of the pod's cgroup, because on
// cgroup v2 a cgroup with children cannot contain processes.
func pauseCgroup(r *record) string {
	return path.Join(cgroupPath(r.CgroupParent), "criserver-pause-"+r.ID[:12])
}

// pauseUnit returns the name of the scope of the pause with the systemd driver.
func pauseUnit(r *record) string { return "criserver-pause-" + r.ID + ".scope" }

// pause starts the pause process of the pod. If maps is not nil, the pause creates the user namespace and the
// namespaces of flags; otherwise it joins the namespaces that exist.
func (b *build) pause(ctx context.Context, maps *userns.Maps, flags int) (err error) {
	defer b.stages.enter("pause")()
	ctx, step := steps.Start(ctx, steps.PodPause)
	defer step.EndWith(&err)
	ref, err := namespace.Pause{
		Path: b.m.cfg.PausePath, ID: b.rec.ID, Dir: b.m.dirs.pin(b.rec.ID), User: maps, Flags: flags,
		ProcessLabel: b.rec.ProcessLabel, MountLabel: b.rec.MountLabel,
	}.Start()
	if ref != (proc.Ref{}) {
		b.rec.Pause = &ref
	}
	if err != nil {
		return err
	}
	return b.m.placePause(ctx, b.rec)
}

// placePause moves the pause into its cgroup below the pod's cgroup. With the systemd driver, only systemd may create
// cgroups there.
func (m *Manager) placePause(ctx context.Context, r *record) error {
	if m.cfg.CgroupDriver == Systemd {
		ctx, step := steps.Start(ctx, steps.SystemdScope)
		err := m.cfg.Units.StartScope(ctx, systemd.Scope{
			Name: pauseUnit(r), Slice: r.CgroupParent, Description: "pause of pod " + r.ID, PID: r.Pause.PID,
		})
		step.End(err)
		return err
	}
	group := pauseCgroup(r)
	if err := m.cfg.Cgroups.Make(group); err != nil {
		return err
	}
	if err := m.cfg.Cgroups.Add(group, r.Pause.PID); err != nil {
		return fmt.Errorf("move pause into cgroup %s: %w", group, err)
	}
	return nil
}

// stopPause stops the pause and releases its cgroup. systemd removes the empty scope without a request.
func (m *Manager) stopPause(ctx context.Context, e *entry) error {
	if !e.spec.Namespaces.SharedPID {
		return nil
	}
	if e.rec.Pause == nil && e.rec.ReadyAt.IsZero() {
		// An earlier daemon may have died after it started the pause and before it recorded the pause.
		if ref, ok := namespace.FindPause(e.rec.ID); ok {
			e.rec.Pause = &ref
		}
	}
	if e.rec.Pause != nil {
		if err := namespace.EndPause(ctx, *e.rec.Pause); err != nil {
			return err
		}
		e.rec.Pause = nil
	}
	if m.cfg.CgroupDriver != Systemd {
		m.cfg.Cgroups.Release(pauseCgroup(e.rec))
	}
	return nil
}

// watchPause marks the pod as not ready when its pause ends, because all processes in the PID namespace end with the
// pause.
func (m *Manager) watchPause(r *record) {
	if r.Pause == nil {
		return
	}
	id := r.ID
	err := m.watcher.Watch(*r.Pause, func(pidfd *os.File) {
		_ = namespace.Reap(pidfd)
		m.MarkNotReady(id, pauseEnded)
	})
	if errors.Is(err, proc.ErrGone) {
		m.MarkNotReady(id, pauseEnded)
	} else if err != nil {
		logrus.WithError(err).WithField("pod", id).Error("cannot watch the pause process of the pod sandbox")
	}
}
