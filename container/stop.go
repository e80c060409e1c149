package container

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/criserver/criserver/internal/proc"
	"golang.org/x/sys/unix"
)

// Stop ends a container: its stop signal, timeout, SIGKILL. It returns when the
// end is recorded. A timeout of 0, or a process that was never started, means
// SIGKILL at once. Of several calls at the same time the earliest deadline
// holds. Stopping what has ended, or is unknown, is no error.
//
// No lock is held: all else about the container goes on meanwhile.
func (m *Manager) Stop(ctx context.Context, id string, timeout time.Duration) error {
	c, err := m.find(id)
	if err == nil {
		err = m.stop(ctx, c, timeout)
	}
	if err = goneIsFine(err); err != nil {
		return fmt.Errorf("stop container %q: %w", short(id), err)
	}
	return nil
}

// stop returns when the container has ended and plugins know.
func (m *Manager) stop(ctx context.Context, c *container, timeout time.Duration) error {
	if err := m.endIt(ctx, c, timeout); err != nil {
		return err
	}
	c.awaitTold(ctx)
	return nil
}

func (m *Manager) endIt(ctx context.Context, c *container, timeout time.Duration) error {
	if c.hasEnded() {
		return m.killRest(ctx, c) // where an earlier try failed
	}
	first := c.beginStop()
	defer c.endStop()
	if c.unseen() {
		return m.killUnseen(ctx, c)
	}
	s := c.snap.Load()
	if timeout > 0 && s.State != Created {
		// A process may take a second signal for more urgent, so it gets one.
		if first {
			if err := c.signal(s.StopSignal); err != nil {
				c.log().WithError(err).Warn("stop signal cannot be sent")
			}
		}
		grace := time.NewTimer(timeout)
		defer grace.Stop()
		select {
		case <-c.ended:
			return m.killRest(ctx, c)
		case <-ctx.Done():
			return fmt.Errorf("it has been sent %s and has not ended: %w", unix.SignalName(s.StopSignal), context.Cause(ctx))
		case <-grace.C:
		}
	}
	return m.kill(ctx, c)
}

// kill sends SIGKILL and waits for the end.
func (m *Manager) kill(ctx context.Context, c *container) error {
	if err := c.signal(unix.SIGKILL); err != nil {
		return fmt.Errorf("kill: %w", err)
	}
	if err := m.killRest(ctx, c); err != nil {
		return err
	}
	dead := time.NewTimer(deathTimeout)
	defer dead.Stop()
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("it has been sent SIGKILL and has not ended: %w", context.Cause(ctx))
	case <-dead.C:
		return fmt.Errorf("it has not ended within %s of SIGKILL: %w", deathTimeout, context.DeadlineExceeded)
	}
}

// killRest ends what the death of the first process does not: the others of a
// container that shares a PID namespace.
func (m *Manager) killRest(ctx context.Context, c *container) error {
	if !c.rec.SharedPID || c.runtime.Guest || c.rec.CgroupPath == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, deathTimeout)
	defer cancel()
	return m.cfg.Cgroups.Kill(ctx, c.rec.CgroupPath)
}

// signal is for the first process; one that has gone needs none.
func (c *container) signal(sig unix.Signal) error {
	if c.runtime.Guest {
		return c.signalInGuest(sig)
	}
	init, _ := c.refs()
	if err := init.Signal(sig); err != nil && !errors.Is(err, proc.ErrGone) {
		return err
	}
	return nil
}

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

// StopPod ends every container of a pod by force, and its guest, and returns when
// all have ended. Creations under way are waited for.
func (m *Manager) StopPod(ctx context.Context, podID string) error {
	err := each(m.inPod(podID), func(c *container) error {
		if err := m.settled(ctx, c); err != nil {
			return err
		}
		if c.snap.Load() == nil {
			return nil // its creation failed
		}
		if err := m.stop(ctx, c, 0); err != nil {
			return fmt.Errorf("stop container %q: %w", short(c.id), err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return m.dropGuest(ctx, podID)
}

// settled waits until a creation is done.
func (m *Manager) settled(ctx context.Context, c *container) error {
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

// each runs fn for all at once; a pod has few containers.
func each(list []*container, fn func(*container) error) error {
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, c := range list {
		wg.Go(func() { errs[i] = fn(c) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
