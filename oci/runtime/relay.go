package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/criserver/criserver/internal/pty"
	"golang.org/x/sys/unix"
)

const (
	copyBufferSize = 32 << 10 // size of the copy buffer of each output, in bytes
	// maxDrain limits the output that is read after the command has exited, because other
	// processes may hold the streams and write without end. It is the maximum capacity of a
	// pipe.
	maxDrain = 1 << 20
)

// relay copies data between the streams of a command and the Streams of the caller.
type relay struct {
	outputs     []output
	input       *os.File   // write end of a pipe, or the terminal's master; nil for none
	terminal    *os.File   // the terminal's master, or nil
	commandEnds []*os.File // the command's ends, until the command has started
	ends        []*os.File // all ends of this process

	copying  sync.WaitGroup
	resizing sync.WaitGroup
	exited   chan struct{} // closed when the command has exited
}

type output struct {
	from *os.File
	to   io.Writer
}

// openPipes makes the pipes for s and returns the command's ends.
func (y *relay) openPipes(s Streams) (stdio [3]*os.File, err error) {
	if s.Stdin != nil {
		if stdio[0], y.input, err = os.Pipe(); err != nil {
			return stdio, err
		}
		y.commandEnds, y.ends = append(y.commandEnds, stdio[0]), append(y.ends, y.input)
	}
	for i, to := range []io.Writer{1: s.Stdout, 2: s.Stderr} {
		if to == nil {
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			return stdio, err
		}
		stdio[i] = w
		y.commandEnds, y.ends = append(y.commandEnds, w), append(y.ends, r)
		y.outputs = append(y.outputs, output{r, to})
	}
	return stdio, nil
}

// setTerminal sets the terminal's master, which relay closes.
func (y *relay) setTerminal(master *os.File, s Streams) {
	y.terminal, y.ends = master, append(y.ends, master)
	if s.Stdin != nil {
		y.input = master
	}
	to := s.Stdout
	if to == nil {
		to = io.Discard
	}
	y.outputs = append(y.outputs, output{master, to})
}

// start starts the goroutines that copy data. If a writer fails, start cancels the command with
// cancel.
func (y *relay) start(ctx context.Context, cancel context.CancelCauseFunc, s Streams) {
	closeAll(y.commandEnds)
	y.commandEnds = nil
	for _, o := range y.outputs {
		y.copying.Go(func() {
			if err := o.copy(); err != nil {
				cancel(fmt.Errorf("write output: %w", err))
			}
		})
	}
	if y.input != nil {
		go copyInput(y.input, s.Stdin, y.terminal != nil)
	}
	if s.Resize != nil {
		y.resizing.Go(func() { y.resize(ctx, s.Resize) })
	}
}

// finish writes the rest of the output after the command has exited.
func (y *relay) finish() {
	close(y.exited)
	for _, o := range y.outputs {
		_ = o.from.SetReadDeadline(time.Now())
	}
	y.copying.Wait()
	y.resizing.Wait()
}

// close closes all files.
func (y *relay) close() {
	closeAll(y.commandEnds)
	closeAll(y.ends)
}

// resize sets the size of the terminal for each size from the channel. Without a terminal, it
// only drains the channel.
func (y *relay) resize(ctx context.Context, sizes <-chan pty.Size) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-y.exited:
			return
		case size, ok := <-sizes:
			if !ok {
				return
			}
			if y.terminal != nil {
				_ = pty.Resize(y.terminal, size)
			}
		}
	}
}

// copyInput copies the input and closes the command's input at the end, unless the input is a
// terminal. If the command has closed its input, copyInput discards the rest, because the
// client may send other data behind it on the same connection.
func copyInput(to *os.File, from io.Reader, terminal bool) {
	_, err := io.Copy(to, from)
	if !terminal {
		err = errors.Join(err, to.Close())
	}
	if err != nil {
		_, _ = io.Copy(io.Discard, from)
	}
}

// copy copies output until its end, or until the command has exited. It returns only errors of
// the writer: reading a closed terminal returns EIO.
func (o output) copy() error {
	b := make([]byte, copyBufferSize)
	for {
		n, err := o.from.Read(b)
		if n > 0 {
			if _, err := o.to.Write(b[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return o.drain(b)
		case err != nil:
			return nil
		}
	}
}

// drain copies the output that is available and does not wait for more.
func (o output) drain(b []byte) error {
	_ = o.from.SetReadDeadline(time.Time{}) // an expired deadline would make every read fail
	c, err := o.from.SyscallConn()
	if err != nil {
		return nil
	}
	for moved := 0; moved < maxDrain; {
		n := 0
		var failure error
		err := c.Read(func(fd uintptr) bool {
			n, failure = unix.Read(int(fd), b)
			return true
		})
		if errors.Join(err, failure) != nil || n <= 0 {
			return nil
		}
		if _, err := o.to.Write(b[:n]); err != nil {
			return err
		}
		moved += n
	}
	return nil
}
