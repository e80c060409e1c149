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
	"github.com/criserver/criserver/internal/proc"
)

// maxExit is the maximum size of an exit record, in bytes.
const maxExit = 4096

// ReopenLog makes the monitor of a container open the log file again, after the old file was
// renamed. Everything that the container writes after ReopenLog has returned goes to the new
// file. No line is lost or split between the two files.
func ReopenLog(ctx context.Context, runDir string) error {
	if err := callMonitor(ctx, runDir, wire.Request{Op: wire.OpReopenLog}); err != nil {
		return fmt.Errorf("reopen log: %w", err)
	}
	return nil
}

// Resize sets the size of a container's terminal.
func Resize(ctx context.Context, runDir string, size Size) error {
	q := wire.Request{Op: wire.OpResize, Width: size.Width, Height: size.Height}
	if err := callMonitor(ctx, runDir, q); err != nil {
		return fmt.Errorf("resize terminal: %w", err)
	}
	return nil
}

// Start starts a created container whose start is deferred, and returns its first process. It is
// no error if the container is already running. For a container in a guest the process can be zero.
func Start(ctx context.Context, runDir string) (proc.Ref, error) {
	var started Started
	err := callMonitorFor(ctx, runDir, wire.Request{Op: wire.OpStart}, &started)
	return started.Init, err
}

// Abandon ends a created container whose start is deferred and that was never started.
func Abandon(ctx context.Context, runDir string) error {
	if err := callMonitor(ctx, runDir, wire.Request{Op: wire.OpAbandon}); err != nil {
		return fmt.Errorf("abandon container: %w", err)
	}
	return nil
}

// ReadExit reads an exit record. It returns fs.ErrNotExist if there is none.
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
		return Exit{}, fmt.Errorf("read exit record %s: want a record of version %d with an id", path, Version)
	}
	return e, nil
}

// callMonitor sends one request to the monitor of runDir and waits for the reply.
func callMonitor(ctx context.Context, runDir string, q wire.Request) error {
	return callMonitorFor(ctx, runDir, q, nil)
}

// callMonitorFor is callMonitor for a request whose reply has more than an error. It decodes the
// reply into v unless v is nil.
func callMonitorFor(ctx context.Context, runDir string, q wire.Request, v any) error {
	c, err := dial(ctx, runDir)
	if err != nil {
		return err
	}
	return errors.Join(c.call(q, v), c.Close())
}

// conn is a connection to a monitor. Each Read and Write transfers one packet. Reads and writes
// fail when the context of dial ends.
type conn struct {
	*net.UnixConn
	ctxErr func() error // the cause of the context's end, or nil
	stop   func() bool
}

// dial connects to the control socket in runDir. The address leads through an open descriptor
// of the directory, because a socket address has at most 107 bytes.
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

// Close closes the connection.
func (c *conn) Close() error {
	c.stop()
	return c.UnixConn.Close()
}

// contextError returns the cause of the context's end if err results from it, or else err.
func (c *conn) contextError(err error) error {
	if ended := c.ctxErr(); ended != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return ended
	}
	return err
}

// call sends a request, waits for the reply, and decodes it into v unless v is nil.
func (c *conn) call(q wire.Request, v any) error {
	b, err := json.Marshal(q)
	if err != nil {
		return err
	}
	if _, err := c.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("call monitor: %w", c.contextError(err))
	}
	answer := make([]byte, wire.MaxStarted)
	n, err := c.Read(answer)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return fmt.Errorf("call monitor: %w", c.contextError(err))
	}
	var reply wire.Reply
	if err := json.Unmarshal(answer[:n], &reply); err != nil {
		return fmt.Errorf("call monitor: %w", err)
	}
	if reply.Error != "" {
		return errors.New(reply.Error)
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal(answer[:n], v)
}
