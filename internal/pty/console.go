package pty

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Console is the socket on which an OCI runtime sends the master of a terminal
// (--console-socket of runc's command line).
//
// Package conmon/monitor has its own implementation, which needs no goroutine and not package
// net.
type Console struct {
	// Path is the path of the socket for other processes of this user. It is valid while the
	// Console is open.
	Path string

	dir *os.File
	l   *net.UnixListener
}

// ListenConsole makes the socket in dir, which no other user may be able to enter. The path
// leads through this process's descriptor of the directory, because a socket address has at
// most 107 bytes and the path of the directory may be longer.
func ListenConsole(dir string) (*Console, error) {
	d, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	path := "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/" + strconv.Itoa(int(d.Fd())) + "/console-" + rand.Text()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("console socket: %w", err), d.Close())
	}
	return &Console{Path: path, dir: d, l: l}, nil
}

// Receive returns the master that the runtime sends within the timeout, or has already sent.
// The file supports read deadlines.
func (c *Console) Receive(timeout time.Duration) (*os.File, error) {
	f, err := c.receive(time.Now().Add(timeout))
	if err != nil {
		return nil, fmt.Errorf("receive terminal: %w", err)
	}
	return f, nil
}

func (c *Console) receive(deadline time.Time) (*os.File, error) {
	if err := c.l.SetDeadline(deadline); err != nil {
		return nil, err
	}
	conn, err := c.l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	text := make([]byte, 4096) // the runtime's name of the terminal, which is not needed
	oob := make([]byte, unix.CmsgSpace(4*4))
	_, n, _, _, err := conn.ReadMsgUnix(text, oob)
	if err != nil {
		return nil, err
	}
	return master(oob[:n])
}

// master returns the file of the only descriptor in a control message.
func master(oob []byte) (*os.File, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	for i := range msgs {
		if more, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			fds = append(fds, more...)
		}
	}
	if len(fds) == 1 {
		// Go's poller needs a non-blocking descriptor.
		if err := unix.SetNonblock(fds[0], true); err != nil {
			return nil, errors.Join(err, unix.Close(fds[0]))
		}
		return os.NewFile(uintptr(fds[0]), "terminal"), nil
	}
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
	return nil, fmt.Errorf("the runtime sent %d descriptors, want 1", len(fds))
}

// Close closes and removes the socket. A master that was received stays open.
func (c *Console) Close() error { return errors.Join(c.l.Close(), c.dir.Close()) }
