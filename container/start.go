package container

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// startTimeout bounds the runtime's start, which the request cannot cancel:
	// cut off, nobody could say whether the process runs.
	startTimeout = 2 * time.Minute
	// deathTimeout bounds the wait for a process that was sent SIGKILL, and for
	// the record of its end: it is longer than recordGrace.
	deathTimeout = 2 * time.Minute
	// exitCannotRun is the exit code of a container whose process was never run.
	exitCannotRun = 128
)

// Start runs the process of a created container. When that fails the container
// has ended, with ReasonContainerCannotRun and the runtime's words.
func (m *Manager) Start(ctx context.Context, id string) error {
	c, err := m.find(id)
	if err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	unlock, err := m.ops.Lock(ctx, c.id)
	if err != nil {
		return fmt.Errorf("start container %q: %w", short(c.id), err)
	}
	defer unlock()
	if s := c.snap.Load(); s.State != Created {
		return errWrongState("start", s)
	}
	if err := m.checkPodReady(c.rec.PodID); err != nil {
		return fmt.Errorf("start container %q: %w", short(c.id), err)
	}
	if err := m.consultStart(ctx, c); err != nil {
		return fmt.Errorf("start container %q: %w", short(c.id), err)
	}
	m.events.expectStart(c.id)
	if err := m.start(context.WithoutCancel(ctx), c); err != nil {
		return fmt.Errorf("start container %q: %w", short(c.id), err)
	}
	c.log().Info("container started")
	m.events.send(cri.ContainerEventType_CONTAINER_STARTED_EVENT, c.snap.Load())
	m.tellStarted(ctx, c)
	return nil
}

// start is called with the operation lock held. The time is taken and written
// before the call, so that no process ends before it has started, and a daemon
// that dies in between knows what it was about.
func (m *Manager) start(ctx context.Context, c *container) error {
	now := time.Now().UnixNano()
	if err := c.change(func(f *facts) { f.Starting = now }); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := c.runProcess(ctx); err != nil {
		m.cannotRun(c, err)
		return err
	}
	if err := c.change(func(f *facts) { f.Started = now }); err != nil {
		c.log().WithError(err).Warn("the container's start is not on disk")
	}
	return nil
}

// cannotRun ends what could not be started.
func (m *Manager) cannotRun(c *container, cause error) {
	c.mu.Lock()
	c.startFailure = cause.Error()
	c.mu.Unlock()
	if c.runtime.Guest {
		c.killUnstarted()
	} else if init, _ := c.refs(); init.PID != 0 {
		_ = init.Signal(unix.SIGKILL) // it may have gone by itself
	}
	select {
	case <-c.ended:
	case <-time.After(deathTimeout):
		c.log().Error("the container that could not be started does not die")
	}
}
