package container

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/container/record"
	"github.com/criserver/criserver/internal/steps"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// deathTimeout limits the wait for a process after SIGKILL, and for the record of its
	// exit. It is longer than recordGrace.
	deathTimeout = 2 * time.Minute
	// exitCannotRun is the exit code of a container whose process never ran.
	exitCannotRun = 128
)

// Start runs the process of a created container. If the start fails, the container has
// exited with ReasonContainerCannotRun and the message of the runtime.
func (m *Manager) Start(ctx context.Context, id string) (err error) {
	c, err := m.find(id)
	if err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	ctx, step := steps.Begin(ctx, steps.ContainerStart, c.stepObject())
	defer step.EndWith(&err)
	unlock, err := m.ops.Lock(ctx, c.id)
	if err != nil {
		return fmt.Errorf("start container %q: %w", short(c.id), err)
	}
	defer unlock()
	if s := c.snap.Load(); s.State != Created {
		return errWrongState("start", s)
	}
	if err := m.startLocked(ctx, c); err != nil {
		return fmt.Errorf("start container %q: %w", short(c.id), err)
	}
	c.log().Info("container started")
	m.events.send(cri.ContainerEventType_CONTAINER_STARTED_EVENT, c.snap.Load())
	m.notify(ctx, c.snap.Load(), Plugins.Started)
	return nil
}

// stepObject identifies the container for the steps of its operations.
func (c *container) stepObject() steps.Object {
	return steps.Object{Pod: c.rec.PodID, Container: c.id, Name: c.config.GetMetadata().GetName()}
}

// startLocked starts a created container. The caller holds the operation lock.
func (m *Manager) startLocked(ctx context.Context, c *container) error {
	if c.configError != nil {
		return fmt.Errorf("an earlier version of the daemon has accepted the config, this version does not: %w: %w", c.configError, errdefs.ErrFailedPrecondition)
	}
	if err := m.checkPodReady(c.rec.PodID); err != nil {
		return err
	}
	if err := m.approveStart(ctx, c); err != nil {
		return err
	}
	m.events.expectStart(c.id)
	return m.startProcess(context.WithoutCancel(ctx), c)
}

// startProcess writes the start time before the call of the runtime. The process then
// cannot exit before its start time, and a daemon that finds the time after a crash
// completes the start.
func (m *Manager) startProcess(ctx context.Context, c *container) error {
	now := time.Now().UnixNano()
	if err := c.change(func(s *record.Status) { s.Starting = now }); err != nil {
		return err
	}
	if err := m.runProcess(ctx, c); err != nil {
		m.failStart(c, err)
		return err
	}
	if err := c.change(func(s *record.Status) { s.Started = now }); err != nil {
		c.log().WithError(err).Warn("write the start of the container to its state file")
	}
	return nil
}

// failStart kills a container that could not be started, and waits for its exit.
func (m *Manager) failStart(c *container, cause error) {
	c.mu.Lock()
	c.startFailure = cause.Error()
	c.mu.Unlock()
	if err := c.signal(unix.SIGKILL); err != nil {
		c.log().WithError(err).Warn("kill the container that could not be started")
	}
	if c.runtime.Guest {
		c.killStartedInGuest()
	}
	select {
	case <-c.exited:
	case <-time.After(deathTimeout):
		c.log().WithField("timeout", deathTimeout).Error("a container that could not be started does not exit after SIGKILL")
	}
}
