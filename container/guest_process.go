package container

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/container/bundle"
	"github.com/criserver/criserver/container/guest"
	"github.com/criserver/criserver/container/record"
	"golang.org/x/sys/unix"
)

// The processes of a container in a guest (see package guest) are not processes of the host.
// The runtime, or the monitor through the runtime, does what the kernel does for other
// containers.

// signalTimeout limits the delivery of a signal by the runtime.
const signalTimeout = time.Minute

// signalInGuest sends a signal to a running container in a guest.
func (c *container) signalInGuest(sig unix.Signal) error {
	ctx, cancel := context.WithTimeout(context.Background(), signalTimeout)
	defer cancel()
	err := c.runtime.Kill(ctx, c.id, sig)
	if err != nil && c.awaitExitRecorded() {
		return nil
	}
	return err
}

// killStartedInGuest kills the process of a container in a guest whose start failed. The start may
// have been interrupted after the runtime had started the process.
func (c *container) killStartedInGuest() {
	ctx, cancel := context.WithTimeout(context.Background(), signalTimeout)
	defer cancel()
	if err := c.runtime.Kill(ctx, c.id, unix.SIGKILL); err != nil {
		c.log().WithError(err).Debug("the container that could not be started has no process")
	}
}

// awaitExitRecorded reports whether the exit of the container is recorded soon. The
// runtime cannot send signals to a container that has exited.
func (c *container) awaitExitRecorded() bool {
	grace := time.NewTimer(recordGrace)
	defer grace.Stop()
	select {
	case <-c.exited:
		return true
	case <-grace.C:
		return false
	}
}

// awaitGuestExit replaces a monitor that has exited: it waits for the exit of the
// container and records the exit.
func (m *Manager) awaitGuestExit(c *container) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-m.stopping:
			cancel()
		case <-c.exited:
			cancel()
		case <-ctx.Done():
		}
	}()
	code, err := c.runtime.Wait(ctx, c.id)
	if ctx.Err() != nil {
		return // the next daemon records the exit
	}
	e := record.Exit{Finished: time.Now().UnixNano(), ExitCode: code, Reason: reasonOf(code), Message: "the monitor process had exited"}
	if err != nil {
		c.log().WithError(err).Warn("wait for the exit of the container")
		e.ExitCode, e.Reason = exitUnknown, ReasonError
		e.Message = "the exit code is unknown: the monitor process had exited"
	}
	m.recordExit(c, e, ExitFacts{})
}

// guestPod returns the properties of a pod that its guest uses.
func guestPod(p Pod) guest.Pod {
	return guest.Pod{ID: p.ID, Hostname: bundle.Hostname(p.Config), CgroupParent: p.CgroupParent, NetNS: p.NetNS, UserNS: p.UserNS}
}

// checkUpdatable returns an error if the runtime cannot change limits.
func (c *container) checkUpdatable() error {
	if c.awaitsRestore() {
		return fmt.Errorf("the container has no process before its start, because it is restored from a checkpoint: %w", errdefs.ErrFailedPrecondition)
	}
	if !c.runtime.Guest {
		return nil
	}
	return fmt.Errorf("runtime handler %q cannot change the limits of a container: %w", c.runtime.Name, errdefs.ErrNotImplemented)
}
