package container

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/conmon"
	"golang.org/x/sys/unix"
)

// What differs for a container in a guest (see guestRecord): its processes are
// none of the host's, so the runtime, or the monitor by means of it, does to
// them what the kernel would.

// runProcess has the created container run its process.
func (c *container) runProcess(ctx context.Context) error {
	if c.runtime.Guest {
		return conmon.Start(ctx, c.dir)
	}
	return c.runtime.Start(ctx, c.id)
}

// signalTimeout bounds a signal that the runtime has to deliver.
const signalTimeout = time.Minute

// signalInGuest delivers a signal. One that is not running yet takes SIGKILL
// only, and with it ends.
func (c *container) signalInGuest(sig unix.Signal) error {
	ctx, cancel := context.WithTimeout(context.Background(), signalTimeout)
	defer cancel()
	if c.snap.Load().State == Created {
		return conmon.Abandon(ctx, c.dir)
	}
	err := c.runtime.Kill(ctx, c.id, sig)
	if err != nil && c.endsNow() {
		return nil
	}
	return err
}

// killUnstarted ends a container in a guest whose start failed. The runtime's start
// may have been cut off after it had run the process.
func (c *container) killUnstarted() {
	if err := c.signalInGuest(unix.SIGKILL); err != nil {
		c.log().WithError(err).Warn("the container that could not be started cannot be ended")
	}
	ctx, cancel := context.WithTimeout(context.Background(), signalTimeout)
	defer cancel()
	if err := c.runtime.Kill(ctx, c.id, unix.SIGKILL); err != nil {
		c.log().WithError(err).Debug("the container that could not be started runs no process")
	}
}

// endsNow says whether the end of the container is being recorded: then the
// runtime cannot signal it any more.
func (c *container) endsNow() bool {
	grace := time.NewTimer(recordGrace)
	defer grace.Stop()
	select {
	case <-c.ended:
		return true
	case <-grace.C:
		return false
	}
}

// awaitInGuest takes the place of a monitor that was lost: it waits for the end
// of the container.
func (m *Manager) awaitInGuest(c *container) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-m.ending:
			cancel()
		case <-c.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	code, err := c.runtime.Wait(ctx, c.id)
	if ctx.Err() != nil {
		return // the next daemon will see it all again
	}
	e := end{Finished: time.Now().UnixNano(), ExitCode: code, Reason: reasonOf(code), Message: "the monitor process had gone"}
	if err != nil {
		c.log().WithError(err).Warn("the exit code of the container is unknown")
		e.ExitCode, e.Reason = exitUnknown, ReasonError
		e.Message = "the exit code is unknown: the monitor process had gone"
	}
	m.end(c, e)
}

// mustUpdate is for what runtimes with guests do not have.
func (c *container) mustUpdate() error {
	if !c.runtime.Guest {
		return nil
	}
	return fmt.Errorf("runtime handler %q cannot change the limits of a container: %w", c.runtime.Name, errdefs.ErrNotImplemented)
}
