package oci

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
	copySize = 32 << 10 // what is in memory of each output, in bytes
	// maxRest bounds what is read after a command's end, as others may have its
	// streams and write for ever. It is what a pipe can hold at most.
	maxRest = 1 << 20
)

// relay is this side of a command's streams.
type relay struct {
	outputs  []output
	input    *os.File   // write end of a pipe, or the terminal's master; nil for none
	terminal *os.File   // its master, or nil
	theirs   []*os.File // the command's ends, until it has them
	own      []*os.File

	copying  sync.WaitGroup
	resizing sync.WaitGroup
	ended    chan struct{} // closed when the command has
}

type output struct {
	from *os.File
	to   io.Writer
}

// pipes makes what is joined with s and returns the command's ends.
func (y *relay) pipes(s Streams) (stdio [3]*os.File, err error) {
	if s.Stdin != nil {
		if stdio[0], y.input, err = os.Pipe(); err != nil {
			return stdio, err
		}
		y.theirs, y.own = append(y.theirs, stdio[0]), append(y.own, y.input)
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
		y.theirs, y.own = append(y.theirs, w), append(y.own, r)
		y.outputs = append(y.outputs, output{r, to})
	}
	return stdio, nil
}

// useTerminal takes over the master.
func (y *relay) useTerminal(master *os.File, s Streams) {
	y.terminal, y.own = master, append(y.own, master)
	if s.Stdin != nil {
		y.input = master
	}
	to := s.Stdout
	if to == nil {
		to = io.Discard
	}
	y.outputs = append(y.outputs, output{master, to})
}

// start moves bytes. A writer that fails ends the command by cancel.
func (y *relay) start(ctx context.Context, cancel context.CancelCauseFunc, s Streams) {
	closeAll(y.theirs)
	y.theirs = nil
	for _, o := range y.outputs {
		y.copying.Go(func() {
			if err := o.copy(); err != nil {
				cancel(fmt.Errorf("pass output on: %w", err))
			}
		})
	}
	if y.input != nil {
		go pump(y.input, s.Stdin, y.terminal != nil)
	}
	if s.Resize != nil {
		y.resizing.Go(func() { y.resize(ctx, s.Resize) })
	}
}

// finish passes on what is left, once the command has ended.
func (y *relay) finish() {
	close(y.ended)
	for _, o := range y.outputs {
		_ = o.from.SetReadDeadline(time.Now())
	}
	y.copying.Wait()
	y.resizing.Wait()
}

func (y *relay) close() {
	closeAll(y.theirs)
	closeAll(y.own)
}

// resize follows the sizes; those of a command without a terminal go nowhere.
func (y *relay) resize(ctx context.Context, sizes <-chan pty.Size) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-y.ended:
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

// pump moves the input and passes its end on, which a terminal does not have.
// What comes after the command has closed its own is dropped, as the one who
// sends it may send other things behind it, on the same connection.
func pump(to *os.File, from io.Reader, terminal bool) {
	_, err := io.Copy(to, from)
	if !terminal {
		err = errors.Join(err, to.Close())
	}
	if err != nil {
		_, _ = io.Copy(io.Discard, from)
	}
}

// copy moves output until its end, or until the command's. Only a failure of
// the writer is an error: a terminal ends in EIO.
func (o output) copy() error {
	b := make([]byte, copySize)
	for {
		n, err := o.from.Read(b)
		if n > 0 {
			if _, err := o.to.Write(b[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return o.rest(b)
		case err != nil:
			return nil
		}
	}
}

// rest moves what is there and does not wait for more.
func (o output) rest(b []byte) error {
	_ = o.from.SetReadDeadline(time.Time{}) // a deadline that has passed forbids every read
	c, err := o.from.SyscallConn()
	if err != nil {
		return nil
	}
	for moved := 0; moved < maxRest; {
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
