// Package pty handles the masters of terminals that OCI runtimes make.
package pty

import (
	"os"

	"golang.org/x/sys/unix"
)

// Size is that of a terminal, in characters.
type Size struct{ Width, Height uint16 }

// Resize sets the terminal's size. Whoever is in its foreground gets SIGWINCH.
func Resize(master *os.File, s Size) error {
	// The descriptor stays with Go's poller, which File.Fd would take it from.
	c, err := master.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	err = c.Control(func(fd uintptr) {
		failure = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: s.Height, Col: s.Width})
	})
	if err != nil {
		return err
	}
	return failure
}
