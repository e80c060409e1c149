package container

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ExecResult is the outcome of ExecSync.
type ExecResult = oci.ExecOutput

// ExecSync runs a command in a running container. Of each stream the first
// oci.MaxExecOutput bytes are kept. A timeout of 0 is none; one that passes
// gives context.DeadlineExceeded, by which the kubelet knows a probe's timeout.
func (m *Manager) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (ExecResult, error) {
	r, full, p, err := m.ExecProcess(id, cmd, false)
	if err != nil {
		return ExecResult{}, err
	}
	ctx, cancel := m.whileAlive(ctx, full)
	defer cancel()
	out, err := r.Exec(ctx, m.execInput(full, p, timeout))
	if err != nil {
		return ExecResult{}, fmt.Errorf("exec in container %q: %w", short(full), err)
	}
	return out, nil
}

// ExecProcess is what an exec in a running container starts from: the runtime,
// the full id, and the container's own process with another command.
func (m *Manager) ExecProcess(id string, cmd []string, terminal bool) (*oci.Runtime, string, *specs.Process, error) {
	c, err := m.find(id)
	if err != nil {
		return nil, "", nil, fmt.Errorf("exec in container: %w", err)
	}
	if s := c.snap.Load(); s.State != Running {
		return nil, "", nil, errWrongState("exec in", s)
	}
	if len(cmd) == 0 {
		return nil, "", nil, invalid("exec in container %q: cmd is empty", short(c.id))
	}
	base, err := c.baseProcess()
	if err != nil {
		return nil, "", nil, fmt.Errorf("exec in container %q: %w", short(c.id), err)
	}
	p := *base
	p.Args, p.Terminal = cmd, terminal
	return c.runtime, c.id, &p, nil
}

// execInput returns the input of an exec in a container with this full id.
func (m *Manager) execInput(id string, p *specs.Process, timeout time.Duration) oci.ExecInput {
	in := oci.ExecInput{ID: id, Process: p, Timeout: timeout, Dir: m.dir(id)}
	if c, err := m.find(id); err == nil {
		root := rootOwner(c.userMaps)
		in.StdioUID, in.StdioGID = root.uid, root.gid
		in.OOMScoreAdj = m.execOOMScoreAdj(c)
	}
	return in
}

// whileAlive ends the context of an exec when the container ends. In a PID
// namespace of its own the kernel kills the command; in a shared one a command
// that was just being started would be left.
func (m *Manager) whileAlive(ctx context.Context, id string) (context.Context, func()) {
	c, err := m.find(id)
	if err != nil || !c.rec.SharedPID {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-c.ended:
			cancel(fmt.Errorf("the container has ended: %w", errdefs.ErrFailedPrecondition))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// baseProcess is the process of the config; after a restart of the daemon it is
// read from the bundle.
func (c *container) baseProcess() (*specs.Process, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process != nil {
		return c.process, nil
	}
	var config struct{ Process *specs.Process }
	if err := readJSON(filepath.Join(c.dir, configFile), &config); err != nil {
		return nil, err
	}
	if config.Process == nil {
		return nil, fmt.Errorf("%s has no process", configFile)
	}
	c.process = config.Process
	return c.process, nil
}

// ReopenLog has the monitor open the log file anew after a rotation.
func (m *Manager) ReopenLog(ctx context.Context, id string) error {
	c, err := m.find(id)
	if err != nil {
		return fmt.Errorf("reopen log: %w", err)
	}
	if s := c.snap.Load(); s.State != Running && s.State != Created {
		return errWrongState("reopen log of", s)
	}
	if err := conmon.ReopenLog(ctx, c.dir); err != nil {
		return fmt.Errorf("reopen log of container %q: %w", short(c.id), err)
	}
	return nil
}
