// Package pty handles the masters of terminals that OCI runtimes create.
package pty

import (
	"os"

	"golang.org/x/sys/unix"
)

// Size is the size of a terminal, in characters.
type Size struct{ Width, Height uint16 }

// Resize sets the size of a terminal. The kernel sends SIGWINCH to the foreground process
// group.
func Resize(master *os.File, s Size) error {
	// File.Fd would make the descriptor blocking and remove it from Go's poller.
	c, err := master.SyscallConn()
	if err != nil {
		return err
	}
	var ioctlErr error
	err = c.Control(func(fd uintptr) {
		ioctlErr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: s.Height, Col: s.Width})
	})
	if err != nil {
		return err
	}
	return ioctlErr
}
