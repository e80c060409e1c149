package container

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/container/record"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/oci/runtime"
	"golang.org/x/sys/unix"
)

// errStopping ends the checkpoint of a container that is being stopped.
var errStopping = fmt.Errorf("the container is being stopped: %w", errdefs.ErrAborted)

// Held is a running container whose operation lock a checkpoint holds until Release. A stop needs no lock, and ends
// the checkpoint.
type Held struct {
	*Snapshot
	// Runtime is the OCI runtime of the container.
	Runtime *runtime.Runtime

	m      *Manager
	c      *container
	unlock func()
	cancel context.CancelCauseFunc
}

// Hold locks a container for a checkpoint after the running operation of the container has ended. The returned context
// ends with ctx, or when a client stops the container. The caller must call Release.
//
// Errors: ErrNotFound; ErrFailedPrecondition if the container does not run, or has state that a checkpoint cannot
// contain; ErrNotImplemented if the runtime of the container does not support checkpoints.
func (m *Manager) Hold(ctx context.Context, id string) (_ *Held, _ context.Context, err error) {
	c, err := m.find(id)
	if err != nil {
		return nil, nil, fmt.Errorf("checkpoint: %w", err)
	}
	unlock, err := m.ops.Lock(ctx, c.id)
	if err != nil {
		return nil, nil, fmt.Errorf("checkpoint container %q: %w", short(c.id), err)
	}
	s := c.snap.Load()
	if s.State != Running {
		err = errWrongState("checkpoint", s)
	} else if err = errors.Join(c.checkCheckpoint(), c.waitExec(ctx)); err != nil {
		err = fmt.Errorf("checkpoint container %q: %w", short(c.id), err)
	}
	if err != nil {
		unlock()
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	c.mu.Lock()
	c.cancelCheckpoint = cancel
	stopping := c.stops > 0
	c.mu.Unlock()
	if stopping {
		cancel(errStopping)
	}
	return &Held{Snapshot: s, Runtime: c.runtime, m: m, c: c, unlock: unlock, cancel: cancel}, ctx, nil
}

// execPause is the time between two looks at the first process of a container that was just started.
const execPause = time.Millisecond

// waitExec waits until the first process has called execve(2). The start of a container ends earlier: the process is
// still the OCI runtime for some milliseconds, and CRIU refuses the deleted or sealed program file of the runtime.
func (c *container) waitExec(ctx context.Context) error {
	if c.rec.Restore != nil {
		return nil // CRIU has forked the process
	}
	init, _ := c.refs()
	for {
		s, err := proc.ReadStat(init.PID)
		if err != nil || s.Ref != init || !s.Forked {
			return nil // the dump reports the exit of the process
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the start of the first process: %w", context.Cause(ctx))
		case <-time.After(execPause):
		}
	}
}

// checkCheckpoint returns an error if the container has state that a checkpoint cannot contain.
func (c *container) checkCheckpoint() error {
	switch {
	case c.runtime.Guest:
		return fmt.Errorf("runtime handler %q runs containers under a guest kernel, whose state criu cannot read: %w",
			c.runtime.Name, errdefs.ErrNotImplemented)
	case len(c.userMaps.UIDs) > 0:
		return fmt.Errorf("the pod has a user namespace, which a checkpoint cannot contain: %w", errdefs.ErrFailedPrecondition)
	case c.rec.SharedPID:
		return fmt.Errorf("the container shares a PID namespace (%s): in a new PID namespace, other processes can have the ids of its processes: %w",
			c.config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetPid(), errdefs.ErrFailedPrecondition)
	}
	return nil
}

// Release ends the hold. The container must be thawed.
func (h *Held) Release() {
	h.c.mu.Lock()
	h.c.cancelCheckpoint = nil
	h.c.mu.Unlock()
	h.cancel(nil)
	h.unlock()
}

// SpecFile is the path of the OCI config of the container.
func (h *Held) SpecFile() string { return filepath.Join(h.c.dir, record.ConfigFile) }

// Freeze freezes all processes of the container, and returns when they are frozen.
func (h *Held) Freeze(ctx context.Context) error {
	if err := h.m.cfg.Cgroups.Freeze(ctx, h.ProcessCgroup); err != nil {
		return fmt.Errorf("freeze container %q: %w", short(h.ID), err)
	}
	return nil
}

// Thaw undoes Freeze. If the container is not frozen or has exited, Thaw does nothing.
func (h *Held) Thaw() error {
	if err := h.m.cfg.Cgroups.Thaw(h.ProcessCgroup); err != nil {
		return fmt.Errorf("thaw container %q: %w", short(h.ID), err)
	}
	return nil
}

// Dump writes the CRIU images of the processes of a frozen container. The container stays frozen.
func (h *Held) Dump(ctx context.Context, c runtime.Checkpoint) error {
	err := h.Runtime.Dump(ctx, h.ID, c)
	if err == nil {
		return nil
	}
	init, _ := h.c.refs()
	reason := runtime.CRIUError(filepath.Join(c.WorkDir, runtime.DumpLog))
	switch {
	case ctx.Err() != nil:
	case !init.Alive():
		err = fmt.Errorf("the container has exited: %w", errors.Join(errdefs.ErrFailedPrecondition, err))
	case strings.Contains(reason, "No space left on device") || reason == "" && diskFull(c.WorkDir):
		err = fmt.Errorf("%w: %w", err, errdefs.ErrResourceExhausted)
	case reason != "" && !wasKilled(err): // CRIU has refused the state of a process
		err = fmt.Errorf("%w: %w", err, errdefs.ErrFailedPrecondition)
	}
	return fmt.Errorf("dump container %q: %w", short(h.ID), err)
}

// wasKilled reports whether the error is from a command that a signal has killed.
func wasKilled(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled()
}

// diskFull reports whether the file system of a directory is full. On a full file system CRIU cannot write its log.
func diskFull(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Blocks > 0 && st.Bavail == 0
}

// abortCheckpoint ends the running checkpoint of a container before a stop, because a frozen process does not handle
// the stop signal.
func (c *container) abortCheckpoint() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancelCheckpoint != nil {
		c.cancelCheckpoint(errStopping)
	}
}
