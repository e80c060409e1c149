package conmon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/wire"
)

// maxExit bounds an exit record, in bytes.
const maxExit = 4096

// ReopenLog makes the monitor of a container open its log anew, after the old
// file was renamed. All that the container writes after ReopenLog has returned
// goes to the new file, and no line is lost or split between the two.
func ReopenLog(ctx context.Context, runDir string) error {
	if err := ask(ctx, runDir, wire.Request{Op: wire.OpReopenLog}); err != nil {
		return fmt.Errorf("reopen log: %w", err)
	}
	return nil
}

// Resize sets the size of a container's terminal.
func Resize(ctx context.Context, runDir string, size Size) error {
	q := wire.Request{Op: wire.OpResize, Width: size.Width, Height: size.Height}
	if err := ask(ctx, runDir, q); err != nil {
		return fmt.Errorf("resize terminal: %w", err)
	}
	return nil
}

// Start runs the process of a created container that is in a guest. That it
// runs already is no error.
func Start(ctx context.Context, runDir string) error {
	return ask(ctx, runDir, wire.Request{Op: wire.OpStart})
}

// Abandon ends a container in a guest that was never started.
func Abandon(ctx context.Context, runDir string) error {
	if err := ask(ctx, runDir, wire.Request{Op: wire.OpAbandon}); err != nil {
		return fmt.Errorf("abandon: %w", err)
	}
	return nil
}

// ReadExit reads an exit record. The error is fs.ErrNotExist when there is none.
func ReadExit(path string) (Exit, error) {
	f, err := os.Open(path)
	if err != nil {
		return Exit{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxExit))
	if err != nil {
		return Exit{}, fmt.Errorf("read exit record: %w", err)
	}
	var e Exit
	if err := json.Unmarshal(b, &e); err != nil {
		return Exit{}, fmt.Errorf("read exit record %s: %w", path, err)
	}
	if e.Version != Version || e.ID == "" {
		return Exit{}, fmt.Errorf("read exit record %s: not one of version %d", path, Version)
	}
	return e, nil
}

// ask puts one question to the monitor of runDir.
func ask(ctx context.Context, runDir string, q wire.Request) error {
	c, err := dial(ctx, runDir)
	if err != nil {
		return err
	}
	return errors.Join(c.ask(q), c.Close())
}

// conn is a connection to a monitor. Each Read and Write is one packet. It is
// cut when the context that it was made for ends.
type conn struct {
	*net.UnixConn
	ended func() error // the context's error, nil before its end
	stop  func() bool
}

// dial connects to the control socket in runDir, by way of the open directory,
// as a socket's path has to stay below 108 bytes.
func dial(ctx context.Context, runDir string) (*conn, error) {
	dir, err := os.OpenFile(runDir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	path := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + wire.ControlSocket
	var d net.Dialer
	c, err := d.DialContext(ctx, "unixpacket", path)
	if err != nil {
		return nil, fmt.Errorf("connect to monitor: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	return &conn{c.(*net.UnixConn), func() error { return context.Cause(ctx) }, stop}, nil
}

// Close ends the connection.
func (c *conn) Close() error {
	c.stop()
	return c.UnixConn.Close()
}

// why puts the end of the context, if it was that, in the place of err.
func (c *conn) why(err error) error {
	if ended := c.ended(); ended != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return ended
	}
	return err
}

func (c *conn) ask(q wire.Request) error {
	b, err := json.Marshal(q)
	if err != nil {
		return err
	}
	if _, err := c.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("ask monitor: %w", c.why(err))
	}
	answer := make([]byte, wire.MaxStarted)
	n, err := c.Read(answer)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return fmt.Errorf("ask monitor: %w", c.why(err))
	}
	var reply wire.Reply
	if err := json.Unmarshal(answer[:n], &reply); err != nil {
		return fmt.Errorf("ask monitor: %w", err)
	}
	if reply.Error != "" {
		return errors.New(reply.Error)
	}
	return nil
}
