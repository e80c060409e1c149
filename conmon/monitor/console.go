package monitor

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// consoleSocket is its name in the run directory.
const consoleSocket = "console"

// maxSocketPath is what sun_path holds, with a zero byte at its end.
const maxSocketPath = 108 - 1

// console receives the master of a container's terminal from the OCI runtime,
// as --console-socket of runc's command line has it.
type console struct {
	listener int
	conn     int // the runtime's connection, or -1
	master   int // -1 until received
}

// listenConsole makes the socket in the working directory.
func listenConsole() (*console, error) {
	fd, err := listen(consoleSocket, unix.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	return &console{listener: fd, conn: -1, master: -1}, nil
}

// listen makes a listening socket of that name in the working directory, for
// this user alone. A relative name is never too long.
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

// consolePath is a path of the socket for the runtime, which may work in
// another directory. A long one goes by way of this process's own.
func consolePath(runDir string) string {
	if path := runDir + "/" + consoleSocket; len(path) <= maxSocketPath {
		return path
	}
	return "/proc/" + strconv.Itoa(unix.Getpid()) + "/cwd/" + consoleSocket
}

// waiting is the descriptor on which the next thing will come.
func (c *console) waiting() int {
	switch {
	case c == nil || c.master >= 0:
		return -1
	case c.conn >= 0:
		return c.conn
	}
	return c.listener
}

// step takes what has come, by way of buf, and does nothing when nothing has.
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

func (c *console) receive(buf []byte) error {
	oob := make([]byte, unix.CmsgSpace(4*4))
	// The text is the runtime's name of the terminal, of no use.
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
		return errors.New("receive terminal: the runtime sent none")
	}
	return wrapNil("receive terminal", unix.SetNonblock(c.master, true))
}

// close leaves nothing of it but the master.
func (c *console) close() {
	if c != nil {
		closeFD(&c.conn)
		closeFD(&c.listener)
		_ = unix.Unlink(consoleSocket)
	}
}
