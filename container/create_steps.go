package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/container/bundle"
	"github.com/criserver/criserver/container/record"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/internal/steps"
	"github.com/criserver/criserver/oci"
)

// undoTimeout limits a rollback, which the request cannot cancel.
const undoTimeout = 2 * time.Minute

// make does the work of a creation, from the intent record to the state "created".
func (m *Manager) make(ctx context.Context, c *container, p *plan) error {
	c.enter("write record")
	// StopPod finds the container from now on, so a pod that is ready now cannot be
	// stopped without the container.
	if err := m.checkPodReady(p.pod.ID); err != nil {
		return err
	}
	p.sideEffects = true
	if err := bundle.MakeContainerDir(c.dir, bundle.RootOwner(c.userMaps)); err != nil {
		return err
	}
	if err := c.rec.Write(c.dir); err != nil {
		return err
	}
	c.rec.Config, c.rec.PodConfig = nil, nil // the container has the decoded messages
	c.enter("mount root file system")
	if err := os.Mkdir(c.rootfs(), 0o700); err != nil {
		return err
	}
	if err := m.mountRootFS(ctx, c, p); err != nil {
		return fmt.Errorf("mount root file system: %w", err)
	}
	if err := m.unpackCheckpoint(ctx, c, p); err != nil {
		return err
	}
	var err error
	if p.volumes, err = m.mountImageVolumes(ctx, c, p); err != nil {
		return err
	}
	c.enter("write bundle")
	target, err := m.writeBundle(ctx, c, p)
	if err != nil {
		return err
	}
	if target != nil {
		defer target.Close()
	}
	if c.runtime.Guest {
		c.enter("guest")
		if err := m.guests.Ensure(ctx, p.settings.Builder, guestPod(p.pod), c.runtime); err != nil {
			return err
		}
	}
	c.enter("runtime create")
	return m.launch(ctx, c, p)
}

// launch starts the monitor, which creates the container in the runtime.
func (m *Manager) launch(ctx context.Context, c *container, p *plan) error {
	p.runtimeCalled = true
	root, stdio := bundle.RootOwner(c.userMaps), p.spec.Stdio
	spec := conmon.Spec{
		Version: conmon.Version, ID: c.id, RunDir: c.dir, Bundle: c.dir, ExitFile: m.exits.File(c.id),
		Runtime: c.runtime.Args(), CreateArgs: c.runtime.CreateArgs(), StdioUID: root.UID, StdioGID: root.GID,
		LogPath: c.rec.LogPath, LogSizeMax: p.settings.LogSizeMax,
		Guest: c.runtime.Guest, Terminal: stdio.Terminal, Stdin: stdio.Stdin, StdinOnce: stdio.StdinOnce,
	}
	if p.restore != nil {
		spec.RestoreImages, spec.RestoreArgs, spec.RuntimeEnv = c.rec.Restore.Images, p.restoreArgs, p.restoreEnv()
	}
	started, monitor, err := m.cfg.Monitors.Create(ctx, spec)
	if err != nil {
		return err
	}
	if err := c.change(func(f *record.Status) {
		f.Created, f.Monitor = time.Now().UnixNano(), monitor
		m.setInit(c, f, started.Init)
	}); err != nil {
		return err
	}
	if err := m.adjustProcess(c, p.settings.Builder); err != nil {
		return err
	}
	m.watch(c)
	return nil
}

// setInit sets the first process of a container, if the container has one.
func (m *Manager) setInit(c *container, f *record.Status, init proc.Ref) {
	if f.Init = init; init != (proc.Ref{}) {
		f.ProcessCgroup = m.processCgroup(c, init.PID)
	}
}

// adjustProcess sets what the runtime does not set for a new first process, if the container has one.
func (m *Manager) adjustProcess(c *container, builder *oci.Builder) error {
	init, _ := c.refs()
	if init == (proc.Ref{}) {
		return nil
	}
	if !c.runtime.Guest {
		c.resetOOMScoreAdj(init.PID)
	}
	s := c.snap.Load()
	return m.limitsTarget(c, s).SetHugepages(builder.HugepagesAfterCreate(s.Resources))
}

// processCgroup returns the cgroup of the first process if it is below the cgroup of
// the container, or "". crun puts a container into a child of its systemd scope, and
// crun 1.8 sets most limits only on the child. The process does not run the program of
// the container yet, so it cannot have moved to another cgroup.
func (m *Manager) processCgroup(c *container, pid int) string {
	if !c.runtime.SystemdCgroup || c.runtime.Guest {
		return ""
	}
	path, err := m.cfg.Cgroups.ProcessCgroup(pid)
	if err != nil || !strings.HasPrefix(path, c.rec.CgroupPath+"/") {
		return ""
	}
	return path
}

// undo rolls back a creation that failed. If the rollback fails, the container stays
// visible as a container that never ran, and can be removed.
func (m *Manager) undo(ctx context.Context, c *container, p *plan, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if !p.sideEffects {
		m.unregister(c)
		steps.Forget(ctx, c.id)
		return cause
	}
	c.enter("undo")
	ctx, step := steps.Start(ctx, steps.ContainerRollback)
	s := c.preview()
	err := m.teardown(ctx, c, p.runtimeCalled)
	if step.End(err); err == nil {
		m.unregister(c)
		steps.Forget(ctx, c.id)
		if c.pluginConfig != nil {
			m.notify(ctx, s.withSpec(c.pluginConfig), Plugins.Removed)
		}
		return cause
	}
	c.log().WithError(err).Error("the rollback of a failed creation failed: the container stays visible and can be removed")
	c.fail(cause.Error())
	return errors.Join(cause, fmt.Errorf("undo: %w", err))
}

// fail records the exit of a container that never ran.
func (c *container) fail(reason string) {
	c.mu.Lock()
	c.startFailure = reason
	c.mu.Unlock()
	c.setExit(record.Exit{Finished: time.Now().UnixNano()})
	c.markExitNotified() // plugins are notified of its removal instead
}
