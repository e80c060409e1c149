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

// Size is the size of a terminal, in characters.
type Size = pty.Size

// AttachOptions are the streams to connect with the streams of a container. Nil streams are
// left out.
type AttachOptions struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Resize delivers new terminal sizes until it is closed.
	Resize <-chan Size
	// Attached, if set, is called when the streams are connected. The client receives
	// everything that the container writes from then on.
	Attached func()
}

// ErrDisconnected reports that the monitor closed an attach connection before the container
// exited: the client read too slowly, or the monitor died.
var ErrDisconnected = errors.New("the monitor closed the connection")

// Attach connects the streams of opts with the streams of a container. It returns the exit code
// when the container has exited, and an error when ctx ends. At the end of opts.Stdin, the
// container's stdin is closed if the container was created with StdinOnce, and stays open
// otherwise.
//
// One goroutine may still be in opts.Stdin.Read when Attach returns, because Attach cannot
// interrupt the Read. The caller must close the reader. The result of that Read is discarded.
func Attach(ctx context.Context, runDir string, opts AttachOptions) (exitCode int32, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := dial(ctx, runDir)
	if err != nil {
		return 0, fmt.Errorf("attach: %w", err)
	}
	defer c.Close()
	q := wire.Request{Op: wire.OpAttach, Stdin: opts.Stdin != nil, Stdout: opts.Stdout != nil, Stderr: opts.Stderr != nil}
	if err := c.call(q, nil); err != nil {
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

// sendStdin sends input until the reader or the connection ends. It need not report a failed
// write, because receive fails too.
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

// sendSizes sends terminal sizes until the channel is closed or ctx ends.
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

// receive copies frames to the writers until the exit frame. A monitor of an earlier version
// closes the connection with unread input, which resets the connection. The kernel reports the
// reset once, before it returns the frames that have arrived.
func receive(c *conn, stdout, stderr io.Writer) (int32, error) {
	b := make([]byte, 1+wire.MaxPayload)
	var reset error
	for {
		n, err := c.Read(b)
		if n == 0 && (err == nil || errors.Is(err, io.EOF)) {
			return 0, errors.Join(ErrDisconnected, reset)
		}
		if errors.Is(err, unix.ECONNRESET) && reset == nil {
			reset = err
			continue
		}
		if err != nil {
			if c.ctxErr() == nil {
				return 0, errors.Join(ErrDisconnected, err) // for instance a reset, if the monitor was killed
			}
			return 0, c.contextError(err)
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
		return 0, errors.New("exit frame is too short")
	}
	return int32(binary.BigEndian.Uint32(payload)), nil
}

// deliver writes the payload of a frame to the writer of its stream.
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
