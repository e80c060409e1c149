package runtime

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/monitor/sys"
)

// consoleSocket is the name of the console socket in the run directory.
const consoleSocket = "console"

// maxSocketPath is the longest path of a unix socket, in bytes without the final NUL.
const maxSocketPath = 108 - 1

// Console receives the master of a container's terminal from the OCI runtime, over the socket
// of the option --console-socket. Package pty has the daemon's copy, for exec. This one does
// not use package net, and never blocks: the monitor polls its descriptor together with others.
type Console struct {
	listener int
	conn     int // the runtime's connection, or -1
	// Master is the master of the terminal, or -1 until it is received. The caller closes it.
	Master int
}

// ListenConsole makes the console socket in the working directory.
func ListenConsole() (*Console, error) {
	fd, err := sys.Listen(consoleSocket, unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	return &Console{listener: fd, conn: -1, Master: -1}, nil
}

// ConsolePath returns the path of the console socket for the runtime, whose working directory
// may differ. If the path is too long for a socket address, it leads through the monitor's
// /proc/PID/cwd.
func ConsolePath(runDir string) string {
	if path := runDir + "/" + consoleSocket; len(path) <= maxSocketPath {
		return path
	}
	return "/proc/" + strconv.Itoa(unix.Getpid()) + "/cwd/" + consoleSocket
}

// Waiting returns the descriptor to poll for the next Step, or -1. c can be nil.
func (c *Console) Waiting() int {
	switch {
	case c == nil || c.Master >= 0:
		return -1
	case c.conn >= 0:
		return c.conn
	}
	return c.listener
}

// Step accepts the runtime's connection. After the connection, Step receives the terminal. Step does
// nothing if the call would block. buf is scratch space.
func (c *Console) Step(buf []byte) error {
	if c.Master >= 0 {
		return nil
	}
	if c.conn < 0 {
		fd, _, err := unix.Accept4(c.listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err == unix.EAGAIN {
			return nil
		}
		if err != nil {
			return sys.Wrap("accept the runtime's connection", err)
		}
		c.conn = fd
	}
	err := c.receive(buf)
	if err == unix.EAGAIN {
		return nil
	}
	return err
}

// Finish receives the terminal after the runtime has exited. Everything that the runtime has sent is in the socket
// then.
func (c *Console) Finish(buf []byte) error {
	for c.Master < 0 {
		before := c.conn
		if err := c.Step(buf); err != nil {
			return err
		}
		if c.Master < 0 && c.conn == before {
			return errors.New("receive terminal: the runtime sent no terminal")
		}
	}
	return nil
}

// receive receives the descriptor of the terminal from the runtime.
func (c *Console) receive(buf []byte) error {
	oob := make([]byte, unix.CmsgSpace(4*4))
	// The data is the runtime's name of the terminal, which the monitor does not need.
	_, n, _, _, err := unix.Recvmsg(c.conn, buf[:4096], oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return sys.Wrap("receive terminal", err)
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if c.Master >= 0 {
				_ = unix.Close(fd)
				continue
			}
			c.Master = fd
		}
	}
	if c.Master < 0 {
		return errors.New("receive terminal: the runtime sent no terminal")
	}
	return sys.WrapIf("receive terminal", unix.SetNonblock(c.Master, true))
}

// Close closes everything except Master. c can be nil.
func (c *Console) Close() {
	if c != nil {
		sys.CloseFD(&c.conn)
		sys.CloseFD(&c.listener)
		_ = unix.Unlink(consoleSocket)
	}
}
