package monitor

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// consoleSocket is the name of the console socket in the run directory.
const consoleSocket = "console"

// maxSocketPath is the longest path of a unix socket, in bytes without the final NUL.
const maxSocketPath = 108 - 1

// console receives the master of a container's terminal from the OCI runtime, over the socket
// of the option --console-socket. Package pty has the daemon's copy, for exec. This one does
// not use package net, and never blocks: the monitor polls its descriptor together with others.
type console struct {
	listener int
	conn     int // the runtime's connection, or -1
	master   int // -1 until received
}

// listenConsole makes the console socket in the working directory.
func listenConsole() (*console, error) {
	fd, err := listen(consoleSocket, unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	return &console{listener: fd, conn: -1, master: -1}, nil
}

// listen makes a listening socket in the working directory that only the monitor's user can
// connect to. The relative name is always short enough for a socket address.
func listen(name string, kind int) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, wrap("make socket", err)
	}
	_ = unix.Unlink(name)
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: name})
	if err == nil {
		err = unix.Chmod(name, 0o600)
	}
	if err == nil {
		err = unix.Listen(fd, 16)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, wrap("listen on "+name, err)
	}
	return fd, nil
}

// consolePath returns the path of the console socket for the runtime, whose working directory
// may differ. If the path is too long for a socket address, it leads through the monitor's
// /proc/PID/cwd.
func consolePath(runDir string) string {
	if path := runDir + "/" + consoleSocket; len(path) <= maxSocketPath {
		return path
	}
	return "/proc/" + strconv.Itoa(unix.Getpid()) + "/cwd/" + consoleSocket
}

// waiting returns the descriptor to poll for the next step, or -1.
func (c *console) waiting() int {
	switch {
	case c == nil || c.master >= 0:
		return -1
	case c.conn >= 0:
		return c.conn
	}
	return c.listener
}

// step accepts the runtime's connection. After the connection, step receives the terminal. step does
// nothing if the call would block. buf is scratch space.
func (c *console) step(buf []byte) error {
	if c.master >= 0 {
		return nil
	}
	if c.conn < 0 {
		fd, _, err := unix.Accept4(c.listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err == unix.EAGAIN {
			return nil
		}
		if err != nil {
			return wrap("accept the runtime's connection", err)
		}
		c.conn = fd
	}
	err := c.receive(buf)
	if err == unix.EAGAIN {
		return nil
	}
	return err
}

// receive receives the descriptor of the terminal from the runtime.
func (c *console) receive(buf []byte) error {
	oob := make([]byte, unix.CmsgSpace(4*4))
	// The data is the runtime's name of the terminal, which the monitor does not need.
	_, n, _, _, err := unix.Recvmsg(c.conn, buf[:4096], oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return wrap("receive terminal", err)
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if c.master >= 0 {
				_ = unix.Close(fd)
				continue
			}
			c.master = fd
		}
	}
	if c.master < 0 {
		return errors.New("receive terminal: the runtime sent no terminal")
	}
	return wrapIf("receive terminal", unix.SetNonblock(c.master, true))
}

// close closes everything except the master.
func (c *console) close() {
	if c != nil {
		closeFD(&c.conn)
		closeFD(&c.listener)
		_ = unix.Unlink(consoleSocket)
	}
}
