package container

import (
	"context"
	"time"

	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/conmon/wire"
	"github.com/criserver/criserver/container/record"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/internal/steps"
	"golang.org/x/sys/unix"
)

// The start of a container is deferred if its monitor starts it: the monitor of a container in a guest
// calls the runtime's start, and the monitor of a container from a checkpoint calls the runtime's
// restore. Before its start a container in a guest has the process of the guest as its first process,
// and a container from a checkpoint has no process, no cgroup, and no state in the runtime. The first
// process of the status is zero then, and only the monitor can exit.

const (
	// startTimeout limits the start in the runtime. The request cannot cancel it, because after
	// an interrupted start it is unknown whether the process runs. The monitor kills a start
	// before that, and then answers.
	startTimeout   = wire.StartTimeout + time.Minute/2
	restoreTimeout = wire.RestoreTimeout + 2*time.Minute
)

// startDeferred reports whether the monitor starts the container.
func (c *container) startDeferred() bool { return c.runtime.Guest || c.rec.Restore != nil }

// awaitsRestore reports whether the container has no process yet, because it is restored when it is
// started.
func (c *container) awaitsRestore() bool {
	init, _ := c.refs()
	return c.rec.Restore != nil && init == (proc.Ref{})
}

// runProcess starts the process of a created container.
func (m *Manager) runProcess(ctx context.Context, c *container) (err error) {
	ctx, step := steps.Start(ctx, steps.RuntimeStart)
	defer step.EndWith(&err)
	timeout := startTimeout
	if c.rec.Restore != nil {
		timeout = restoreTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	switch {
	case c.rec.Restore != nil:
		return m.restoreProcess(ctx, c)
	case c.runtime.Guest:
		_, err := conmon.Start(ctx, c.dir)
		return err
	}
	return c.runtime.Start(ctx, c.id)
}

// restoreProcess restores the processes of a container. If it fails, the container has no process that
// the manager knows.
func (m *Manager) restoreProcess(ctx context.Context, c *container) error {
	init, err := conmon.Start(ctx, c.dir)
	if err != nil {
		return c.restoreFailure(err)
	}
	if err := c.change(func(s *record.Status) { m.setInit(c, s, init) }); err != nil {
		c.log().WithError(err).Warn("write the first process of the container to its state file")
	}
	if err := m.adjustRestored(c); err != nil {
		return err
	}
	m.watchInit(c)
	c.removeImages()
	return nil
}

// resumeRestore completes a restore that was interrupted, as resumeStart does. The recovery does not
// wait for it, because a restore can take minutes. No other operation of the container begins before.
func (m *Manager) resumeRestore(ctx context.Context, c *container) error {
	unlock, err := m.ops.Lock(ctx, c.id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer cancel()
		select {
		case <-m.stopping:
		case <-c.exited:
		case <-ctx.Done():
		}
	}()
	go func() {
		defer unlock()
		defer cancel()
		m.resumeStart(ctx, c)
	}()
	return nil
}

// abandon ends a container whose start is deferred and that was never started.
func (c *container) abandon() error {
	ctx, cancel := context.WithTimeout(context.Background(), abandonTimeout)
	defer cancel()
	return conmon.Abandon(ctx, c.dir)
}

// abandonTimeout is longer than a monitor needs to kill a restore.
const abandonTimeout = 90 * time.Second

// endUnrestored records the exit of a container whose monitor has exited before the container was
// restored. The kernel has killed the runtime's restore with the monitor, but criu and processes that
// criu has restored can be left. All of them are in the cgroup of the container.
func (m *Manager) endUnrestored(c *container) {
	ctx, cancel := context.WithTimeout(context.Background(), deathTimeout)
	defer cancel()
	if err := m.cfg.Cgroups.Kill(ctx, c.rec.CgroupPath); err != nil {
		c.log().WithError(err).Error("kill the processes of the container that was being restored")
	}
	m.recordExit(c, record.Exit{
		Finished: time.Now().UnixNano(), ExitCode: 128 + int32(unix.SIGKILL), Reason: ReasonError,
		Message: "the monitor process exited before the container was restored from its checkpoint",
	}, ExitFacts{})
}
