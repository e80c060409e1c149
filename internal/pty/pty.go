// Package pty makes pseudo-terminals.
package pty

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Size is that of a terminal, in characters.
type Size struct{ Width, Height uint16 }

// Open returns the two ends of a new terminal, neither of them anybody's
// controlling terminal. Reads of the master can be given deadlines.
//
// The terminal is made for a program that forwards between it and a terminal of
// its own: input passes as it is, without echo, from the first byte on and not
// only from when the program has got around to it. Only the end of a line is
// still written as carriage return and line feed, which such programs leave to
// the outer terminal.
func Open() (master, slave *os.File, err error) {
	// Opened without blocking, it is handed to Go's poller.
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open /dev/ptmx: %w", err)
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	if slave, err = openSlave(fd); err == nil {
		err = control(slave, raw)
	}
	if err != nil {
		if slave != nil {
			err = errors.Join(err, slave.Close())
		}
		return nil, nil, errors.Join(fmt.Errorf("make terminal: %w", err), master.Close())
	}
	return master, slave, nil
}

// openSlave asks the master for its other end, which needs no path and so no
// trust in what is mounted on /dev/pts.
func openSlave(master int) (*os.File, error) {
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, errno
	}
	return os.NewFile(fd, "pts"), nil
}

func raw(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag |= unix.OPOST | unix.ONLCR
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}

// Resize sets the terminal's size. Whoever is in its foreground gets SIGWINCH.
func Resize(master *os.File, s Size) error {
	return control(master, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: s.Height, Col: s.Width})
	})
}

// control runs fn on the descriptor, which stays with the poller.
func control(f *os.File, fn func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := c.Control(func(fd uintptr) { ferr = fn(int(fd)) }); err != nil {
		return err
	}
	return ferr
}
