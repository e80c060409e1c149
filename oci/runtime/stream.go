package runtime

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/criserver/criserver/internal/pty"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Streams are the streams of a command. Without Stdin, the command gets no input. Output for a
// nil writer is discarded.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer // with a terminal, only Stdout is used
	// Resize delivers new sizes of the terminal until it is closed.
	Resize <-chan pty.Size
}

// terminalTimeout limits the wait for the terminal. A runtime that has exited successfully has
// already sent it.
const terminalTimeout = 30 * time.Second

// ExecStream runs a command in a container. It returns the exit code after it has written all
// output of the command. A writer that blocks delays the command, and ExecStream after the
// command's exit. ExecStream does not wait for output of other processes that still hold the
// command's streams.
//
// If ctx ends or a writer fails, ExecStream kills the command with its descendants and returns
// the cause. It does not use in.Timeout. When ctx ends, the caller must make the writers
// return. One goroutine may still be in Stdin.Read when ExecStream returns, because ExecStream
// cannot interrupt the Read. The caller must close the reader.
//
// As with Exec, the runtime exits after it has started the command, and the calling process
// adopts the command.
func (r *Runtime) ExecStream(ctx context.Context, in ExecInput, s Streams) (int32, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	in.name = "exec-" + rand.Text()
	defer r.removeExecFiles(in)
	y := &relay{exited: make(chan struct{})}
	defer y.close()
	pid, err := r.startStreams(ctx, in, s, y)
	if err != nil {
		return 0, err
	}
	y.start(ctx, cancel, s)
	status, err := waitForCommand(ctx, pid, r.killFunc(in, pid))
	y.finish()
	if err == nil {
		err = context.Cause(ctx) // for instance, a writer has failed while the command exited
	}
	if err != nil {
		return 0, err
	}
	return statusCode(status), nil
}

// startStreams starts the command with its ends of the pipes, or with a terminal.
func (r *Runtime) startStreams(ctx context.Context, in ExecInput, s Streams, y *relay) (int, error) {
	if in.Process.Terminal {
		return r.startWithTerminal(ctx, in, s, y)
	}
	stdio, err := y.openPipes(s)
	if err != nil {
		return 0, fmt.Errorf("%s exec: %w", r.base(), err)
	}
	pid, log, err := r.execStart(ctx, in, stdio)
	if err != nil {
		return 0, r.commandError(ctx, "exec", err, log, nil)
	}
	return pid, nil
}

// withConsoleSize returns p with the first terminal size that the client has sent, if any. So
// the command does not see the size change after its start.
func withConsoleSize(p *specs.Process, sizes <-chan pty.Size) *specs.Process {
	select {
	case size, ok := <-sizes:
		if !ok {
			return p
		}
		resized := *p
		resized.ConsoleSize = &specs.Box{Height: uint(size.Height), Width: uint(size.Width)}
		return &resized
	default:
		return p
	}
}

// startWithTerminal starts the command with a terminal and receives the terminal's master.
func (r *Runtime) startWithTerminal(ctx context.Context, in ExecInput, s Streams, y *relay) (int, error) {
	console, err := pty.ListenConsole(in.Dir)
	if err != nil {
		return 0, fmt.Errorf("%s exec: %w", r.base(), err)
	}
	defer console.Close()
	in.Process = withConsoleSize(in.Process, s.Resize)
	pid, log, err := r.execStart(ctx, in, [3]*os.File{}, "--console-socket", console.Path)
	if err != nil {
		return 0, r.commandError(ctx, "exec", err, log, nil)
	}
	master, err := console.Receive(terminalTimeout)
	if err != nil {
		canceled, cancel := context.WithCancel(ctx)
		cancel()
		_, _ = waitForCommand(canceled, pid, r.killFunc(in, pid)) // kills the command
		return 0, fmt.Errorf("%s exec: %w", r.base(), err)
	}
	y.setTerminal(master, s)
	return pid, nil
}
