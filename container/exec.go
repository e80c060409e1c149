package container

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/container/bundle"
	"github.com/criserver/criserver/container/record"
	"github.com/criserver/criserver/internal/pty"
	"github.com/criserver/criserver/oci/runtime"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ExecResult is the result of ExecSync.
type ExecResult = runtime.ExecOutput

// Streams are the streams of the client of an exec or attach. A stream can be nil.
type Streams = runtime.Streams

// Size is the size of a terminal.
type Size = pty.Size

// ExecSync runs a command in a running container. The result has the first
// runtime.MaxExecOutput bytes of each stream. A timeout of 0 means no timeout. When the
// timeout expires, the error is context.DeadlineExceeded, by which the kubelet
// recognizes the timeout of a probe.
func (m *Manager) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (ExecResult, error) {
	r, full, p, err := m.ExecProcess(id, cmd, false)
	if err != nil {
		return ExecResult{}, err
	}
	ctx, cancel := m.cancelOnExit(ctx, full)
	defer cancel()
	out, err := r.Exec(ctx, m.execInput(full, p, timeout))
	if err != nil {
		return ExecResult{}, fmt.Errorf("exec in container %q: %w", short(full), err)
	}
	return out, nil
}

// Exec runs a command in a running container, also during a stop, and connects its
// streams to the streams of the client. Exec returns when the command has exited and its
// output is copied. When ctx ends, Exec kills the command and returns. One goroutine can
// stay in Stdin.Read until the client closes the reader.
func (m *Manager) Exec(ctx context.Context, id string, cmd []string, tty bool, s Streams) (exitCode int32, err error) {
	r, full, p, err := m.ExecProcess(id, cmd, tty)
	if err != nil {
		return 0, err
	}
	if tty && !slices.ContainsFunc(p.Env, func(kv string) bool { return strings.HasPrefix(kv, "TERM=") }) {
		p.Env = append(slices.Clone(p.Env), "TERM=xterm") // the container shares the list
	}
	ctx, cancel := m.cancelOnExit(ctx, full)
	defer cancel()
	if exitCode, err = r.ExecStream(ctx, m.execInput(full, p, 0), s); err != nil {
		return 0, fmt.Errorf("exec in container %q: %w", short(full), err)
	}
	return exitCode, nil
}

// ExecProcess returns the input of an exec in a running container: the runtime, the full
// id, and the process of the container with another command.
func (m *Manager) ExecProcess(id string, cmd []string, terminal bool) (*runtime.Runtime, string, *specs.Process, error) {
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

// execInput returns the input of an exec in the container with this full id.
func (m *Manager) execInput(id string, p *specs.Process, timeout time.Duration) runtime.ExecInput {
	in := runtime.ExecInput{ID: id, Process: p, Timeout: timeout, Dir: m.dir(id)}
	if c, err := m.find(id); err == nil {
		root := bundle.RootOwner(c.userMaps)
		in.StdioUID, in.StdioGID = root.UID, root.GID
		in.OOMScoreAdj = m.execOOMScoreAdj(c)
	}
	return in
}

// cancelOnExit returns a context for an exec that ends when the container exits. In a
// PID namespace of the container, the kernel kills the command. In a shared PID
// namespace, a command that is just starting would stay.
func (m *Manager) cancelOnExit(ctx context.Context, id string) (context.Context, func()) {
	c, err := m.find(id)
	if err != nil || !c.rec.SharedPID {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-c.exited:
			cancel(fmt.Errorf("the container has exited: %w", errdefs.ErrFailedPrecondition))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// baseProcess returns the process of the OCI config. After a restart of the daemon it
// reads the config from the bundle.
func (c *container) baseProcess() (*specs.Process, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process != nil {
		return c.process, nil
	}
	var config struct{ Process *specs.Process }
	if err := record.ReadJSON(filepath.Join(c.dir, record.ConfigFile), &config); err != nil {
		return nil, err
	}
	if config.Process == nil {
		return nil, fmt.Errorf("%s has no process", record.ConfigFile)
	}
	c.process = config.Process
	return c.process, nil
}

// Attach connects the streams of a client to the streams of a running container. It
// returns when the container has exited or ctx has ended. If the container has
// stdin_once, the end of the client's input ends the input of the container. One
// goroutine can stay in Stdin.Read until the client closes the reader.
func (m *Manager) Attach(ctx context.Context, id string, s Streams) error {
	c, err := m.find(id)
	if err != nil {
		return fmt.Errorf("attach to container: %w", err)
	}
	if snap := c.snap.Load(); snap.State != Running {
		return errWrongState("attach to", snap)
	}
	opts := conmon.AttachOptions{Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr, Resize: s.Resize}
	if _, err := conmon.Attach(ctx, c.dir, opts); err != nil {
		return fmt.Errorf("container %q: %w", short(c.id), err)
	}
	return nil
}

// ReopenLog lets the monitor open the log file again after a rotation.
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
