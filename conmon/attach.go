package conmon

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/wire"
	"github.com/criserver/criserver/internal/pty"
)

// Size is that of a terminal, in characters.
type Size = pty.Size

// AttachOptions are the streams to join with a container's; nil ones are left
// out.
type AttachOptions struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Resize brings new terminal sizes until it is closed.
	Resize <-chan Size
	// Attached, if set, is called once the streams are joined: what the
	// container writes from then on is seen.
	Attached func()
}

// ErrCut says that the monitor ended an attach before the container's end: the
// client was too slow for what the container wrote, or the monitor died.
var ErrCut = errors.New("attach was cut off")

// Attach joins the streams of opts with those of a container and returns when
// the container has ended, with its exit code, or when ctx has. At the end of
// Stdin the container's is closed if it was created with StdinOnce, and left
// open otherwise.
//
// One goroutine may still be in opts.Stdin.Read when Attach returns, as a Read
// cannot be ended from here: whoever gave the reader closes it. What that Read
// returns is dropped.
func Attach(ctx context.Context, runDir string, opts AttachOptions) (exitCode int32, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := dial(ctx, runDir)
	if err != nil {
		return 0, fmt.Errorf("attach: %w", err)
	}
	defer c.Close()
	q := wire.Request{Op: wire.OpAttach, Stdin: opts.Stdin != nil, Stdout: opts.Stdout != nil, Stderr: opts.Stderr != nil}
	if err := c.ask(q); err != nil {
		return 0, fmt.Errorf("attach: %w", err)
	}
	if opts.Attached != nil {
		opts.Attached()
	}
	if opts.Stdin != nil {
		go sendStdin(c, opts.Stdin)
	}
	if opts.Resize != nil {
		done := make(chan struct{})
		go func() {
			defer close(done)
			sendSizes(ctx, c, opts.Resize)
		}()
		defer func() {
			cancel()
			<-done
		}()
	}
	if exitCode, err = receive(c, opts.Stdout, opts.Stderr); err != nil {
		return 0, fmt.Errorf("attach: %w", err)
	}
	return exitCode, nil
}

// sendStdin ends with the reader, or with the connection. A failed write tells
// the receiving side nothing new.
func sendStdin(c *conn, r io.Reader) {
	b := make([]byte, 1+wire.MaxPayload)
	b[0] = byte(wire.FrameStdin)
	for {
		n, err := r.Read(b[1:])
		if n > 0 {
			if _, err := c.Write(b[:1+n]); err != nil {
				return
			}
		}
		if err != nil {
			_, _ = c.Write([]byte{byte(wire.FrameCloseStdin)})
			return
		}
	}
}

func sendSizes(ctx context.Context, c *conn, sizes <-chan Size) {
	for {
		select {
		case <-ctx.Done():
			return
		case s, ok := <-sizes:
			if !ok {
				return
			}
			b := []byte{byte(wire.FrameResize)}
			b = binary.BigEndian.AppendUint16(b, s.Width)
			b = binary.BigEndian.AppendUint16(b, s.Height)
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}
}

// receive copies frames to the writers until the exit frame. A monitor of an
// earlier version closes the connection with input unread in it, which resets the
// connection. The kernel reports that once, before the frames that are there.
func receive(c *conn, stdout, stderr io.Writer) (int32, error) {
	b := make([]byte, 1+wire.MaxPayload)
	var reset error
	for {
		n, err := c.Read(b)
		if n == 0 && (err == nil || errors.Is(err, io.EOF)) {
			return 0, errors.Join(ErrCut, reset)
		}
		if errors.Is(err, unix.ECONNRESET) && reset == nil {
			reset = err
			continue
		}
		if err != nil {
			if c.ended() == nil {
				return 0, errors.Join(ErrCut, err) // as a reset is when the monitor is killed
			}
			return 0, c.why(err)
		}
		if wire.Frame(b[0]) == wire.FrameExit {
			return exitCode(b[1:n])
		}
		if err := deliver(wire.Frame(b[0]), b[1:n], stdout, stderr); err != nil {
			return 0, err
		}
	}
}

func exitCode(payload []byte) (int32, error) {
	if len(payload) < 4 {
		return 0, errors.New("short exit frame")
	}
	return int32(binary.BigEndian.Uint32(payload)), nil
}

func deliver(kind wire.Frame, payload []byte, stdout, stderr io.Writer) error {
	switch kind {
	case wire.FrameStdout:
		return write(stdout, payload)
	case wire.FrameStderr:
		return write(stderr, payload)
	}
	return nil
}

func write(w io.Writer, b []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(b)
	return err
}
