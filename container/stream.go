package container

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/internal/pty"
	"github.com/criserver/criserver/oci"
)

// Streams are a client's ends of an exec or attach; nil ones are left out.
type Streams = oci.Streams

// Size is that of a terminal.
type Size = pty.Size

// Exec runs a command in a running container, one that is being stopped
// included, with its streams joined to the client's. It returns when the
// command has ended and its output has been passed on, or, with the command
// killed, when ctx has ended. One goroutine may stay in Stdin.Read until the
// reader is closed.
func (m *Manager) Exec(ctx context.Context, id string, cmd []string, tty bool, s Streams) (exitCode int32, err error) {
	r, full, p, err := m.ExecProcess(id, cmd, tty)
	if err != nil {
		return 0, err
	}
	if tty && !slices.ContainsFunc(p.Env, func(kv string) bool { return strings.HasPrefix(kv, "TERM=") }) {
		p.Env = append(slices.Clone(p.Env), "TERM=xterm") // the list is the container's own
	}
	ctx, cancel := m.whileAlive(ctx, full)
	defer cancel()
	if exitCode, err = r.ExecStream(ctx, m.execInput(full, p, 0), s); err != nil {
		return 0, fmt.Errorf("exec in container %q: %w", short(full), err)
	}
	return exitCode, nil
}

// Attach joins a client's streams with those of a running container and returns
// when the container, or ctx, has ended. The end of the client's input is that
// of the container's if it has stdin_once. One goroutine may stay in Stdin.Read
// until the reader is closed.
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
