package container

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/internal/steps"
	"golang.org/x/sys/unix"
)

// Stop stops a container: it sends the stop signal, waits for the timeout and sends
// SIGKILL. Stop returns when the exit is recorded. If the timeout is 0, or the process
// was never started, Stop sends SIGKILL at once. Of several calls at the same time the
// earliest deadline is in force. To stop a container that has exited or that does not
// exist is no error.
//
// Stop holds no lock while it waits, so other operations of the container continue.
func (m *Manager) Stop(ctx context.Context, id string, timeout time.Duration) error {
	c, err := m.find(id)
	if err == nil {
		err = m.stop(ctx, c, timeout)
	}
	if err = ignoreNotFound(err); err != nil {
		return fmt.Errorf("stop container %q: %w", short(id), err)
	}
	return nil
}

// stop returns when the container has exited and plugins are notified.
func (m *Manager) stop(ctx context.Context, c *container, timeout time.Duration) error {
	if err := m.terminate(ctx, c, timeout); err != nil {
		return err
	}
	c.awaitExitNotified(ctx)
	return nil
}

// terminate sends the stop signal, waits at most timeout for the exit, and then kills all processes of the container.
// If the container has exited, terminate kills only the remaining processes.
func (m *Manager) terminate(ctx context.Context, c *container, timeout time.Duration) (err error) {
	if c.hasExited() {
		return m.killRemaining(ctx, c) // an earlier attempt may have failed
	}
	ctx, step := steps.Begin(ctx, steps.ContainerStop, c.stepObject())
	defer step.EndWith(&err)
	first := c.beginStop()
	defer c.endStop()
	c.abortCheckpoint()
	if c.initUnknown() {
		return m.killWithoutInit(ctx, c)
	}
	s := c.snap.Load()
	if timeout > 0 && s.State != Created {
		// Programs can take a second signal for a more urgent request, so only the first of
		// several calls sends the signal.
		if first {
			if err := c.signal(s.StopSignal); err != nil {
				c.log().WithError(err).Warn("send the stop signal")
			}
		}
		grace := time.NewTimer(timeout)
		defer grace.Stop()
		_, wait := steps.Start(ctx, steps.ExitWait, steps.Signal(unix.SignalName(s.StopSignal)))
		select {
		case <-c.exited:
			wait.End(nil)
			return m.killRemaining(ctx, c)
		case <-ctx.Done():
			err := fmt.Errorf("the container has not exited after %s: %w", unix.SignalName(s.StopSignal), context.Cause(ctx))
			wait.End(err)
			return err
		case <-grace.C:
			wait.End(nil)
		}
	}
	return m.kill(ctx, c)
}

// kill sends SIGKILL and waits for the exit.
func (m *Manager) kill(ctx context.Context, c *container) (err error) {
	if err := c.signal(unix.SIGKILL); err != nil {
		return fmt.Errorf("kill: %w", err)
	}
	if err := m.killRemaining(ctx, c); err != nil {
		return err
	}
	dead := time.NewTimer(deathTimeout)
	defer dead.Stop()
	_, wait := steps.Start(ctx, steps.ExitWait, steps.Signal("SIGKILL"))
	defer wait.EndWith(&err)
	select {
	case <-c.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the container has not exited after SIGKILL: %w", context.Cause(ctx))
	case <-dead.C:
		return fmt.Errorf("the container has not exited within %s after SIGKILL: %w", deathTimeout, context.DeadlineExceeded)
	}
}

// killRemaining kills the processes of a container that the exit of its first process
// does not end, because the container shares a PID namespace.
func (m *Manager) killRemaining(ctx context.Context, c *container) error {
	if !c.rec.SharedPID || c.runtime.Guest || c.rec.CgroupPath == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, deathTimeout)
	defer cancel()
	return m.cfg.Cgroups.Kill(ctx, c.rec.CgroupPath)
}

// signal sends a signal to the first process. It is no error if the process has exited. A container
// whose start is deferred exits at any signal before its start; the callers send only SIGKILL then.
func (c *container) signal(sig unix.Signal) error {
	if c.startDeferred() && c.snap.Load().State == Created {
		if err := c.abandon(); err != nil && !c.awaitExitRecorded() {
			return err
		}
		return nil
	}
	if c.runtime.Guest {
		return c.signalInGuest(sig)
	}
	init, _ := c.refs()
	if err := init.Signal(sig); err != nil && !errors.Is(err, proc.ErrGone) {
		return err
	}
	return nil
}

// beginStop reports whether no other Stop call waits for the exit.
func (c *container) beginStop() (first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stops++
	return c.stops == 1
}

func (c *container) endStop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stops--
}

// StopPod kills every container and the guest of a pod, and returns when all have
// exited. It waits for running creations.
func (m *Manager) StopPod(ctx context.Context, podID string) error {
	err := forEach(m.podContainers(podID), func(c *container) error {
		if err := m.awaitCreation(ctx, c); err != nil {
			return err
		}
		if c.snap.Load() == nil {
			return nil // the creation failed
		}
		if err := m.stop(ctx, c, 0); err != nil {
			return fmt.Errorf("stop container %q: %w", short(c.id), err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return m.guests.Remove(ctx, podID)
}

// awaitCreation waits until a creation has ended.
func (m *Manager) awaitCreation(ctx context.Context, c *container) error {
	if c.snap.Load() != nil {
		return nil
	}
	unlock, err := m.ops.Lock(ctx, c.id)
	if err != nil {
		return err
	}
	unlock()
	return nil
}

// forEach calls fn for all containers at the same time, and joins the errors. A pod has
// few containers.
func forEach(list []*container, fn func(*container) error) error {
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, c := range list {
		wg.Go(func() { errs[i] = fn(c) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
