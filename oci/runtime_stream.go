package oci

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

// Streams are joined with those of a command. Nil ones are left out: the
// command finds no input, and what it writes is dropped.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer // a terminal has Stdout alone
	// Resize brings new sizes of the terminal until it is closed.
	Resize <-chan pty.Size
}

// consoleTimeout bounds the wait for a terminal that a runtime which has ended
// well must have sent already.
const consoleTimeout = 30 * time.Second

// ExecStream runs a command in a container and returns its exit code after all
// that it wrote has been passed on. A writer that does not take it holds the
// command up and, at its end, ExecStream. What others write that the command
// has left behind, with its streams, is not waited for.
//
// When ctx ends, or a writer fails, the command is killed with its descendants,
// and the error is the cause; in.Timeout is not used. Whoever ends ctx has to
// see to it that the writers return. One goroutine may still be in Stdin.Read
// when ExecStream returns, as a Read cannot be ended from here: whoever gave the
// reader closes it.
//
// As with Exec, the runtime does not stay, and the caller's process adopts the
// command.
func (r *Runtime) ExecStream(ctx context.Context, in ExecInput, s Streams) (int32, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	in.name = "exec-" + rand.Text()
	defer r.swept(in)
	y := &relay{ended: make(chan struct{})}
	defer y.close()
	pid, err := r.streamStart(ctx, in, s, y)
	if err != nil {
		return 0, err
	}
	y.start(ctx, cancel, s)
	status, err := await(ctx, pid, r.ender(in, pid))
	y.finish()
	if err == nil {
		err = context.Cause(ctx) // as when a writer failed at the very end
	}
	if err != nil {
		return 0, err
	}
	return statusCode(status), nil
}

// streamStart starts the command with its ends of what y passes on.
func (r *Runtime) streamStart(ctx context.Context, in ExecInput, s Streams, y *relay) (int, error) {
	if in.Process.Terminal {
		return r.terminalStart(ctx, in, s, y)
	}
	stdio, err := y.pipes(s)
	if err != nil {
		return 0, fmt.Errorf("%s exec: %w", r.base(), err)
	}
	pid, log, err := r.execStart(ctx, in, stdio)
	if err != nil {
		return 0, r.failed(ctx, "exec", err, log, nil)
	}
	return pid, nil
}

// firstSize has a terminal come to the command in the size that the client has
// asked for already, rather than change under it.
func firstSize(p *specs.Process, sizes <-chan pty.Size) *specs.Process {
	select {
	case size, ok := <-sizes:
		if !ok {
			return p
		}
		sized := *p
		sized.ConsoleSize = &specs.Box{Height: uint(size.Height), Width: uint(size.Width)}
		return &sized
	default:
		return p
	}
}

func (r *Runtime) terminalStart(ctx context.Context, in ExecInput, s Streams, y *relay) (int, error) {
	console, err := pty.ListenConsole(in.Dir)
	if err != nil {
		return 0, fmt.Errorf("%s exec: %w", r.base(), err)
	}
	defer console.Close()
	in.Process = firstSize(in.Process, s.Resize)
	pid, log, err := r.execStart(ctx, in, [3]*os.File{}, "--console-socket", console.Path)
	if err != nil {
		return 0, r.failed(ctx, "exec", err, log, nil)
	}
	master, err := console.Receive(consoleTimeout)
	if err != nil {
		ended, cancel := context.WithCancel(ctx)
		cancel()
		_, _ = await(ended, pid, r.ender(in, pid)) // kills it
		return 0, fmt.Errorf("%s exec: %w", r.base(), err)
	}
	y.useTerminal(master, s)
	return pid, nil
}
