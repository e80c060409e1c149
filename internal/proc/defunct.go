package proc

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Defunct returns the number of child processes that have exited and that this process has not reaped. If there are
// none, Defunct needs one system call, however many children there are.
func Defunct() (int, error) {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	switch {
	case errors.Is(err, unix.ECHILD): // there are no children
		return 0, nil
	case err != nil:
		return 0, os.NewSyscallError("waitid", err)
	case info.Signo == 0: // no child has exited
		return 0, nil
	}
	n := 0
	for _, pid := range Children() {
		if isDefunct(pid) {
			n++
		}
	}
	return n, nil
}

// isDefunct reports whether a process is a zombie. A process that does not exist is none.
func isDefunct(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	return statState(b) == 'Z'
}

// statState returns the state in the content of a stat file, or 0. The name of the program, which is before the state,
// can contain any character.
func statState(stat []byte) byte {
	for i := len(stat) - 1; i >= 0; i-- {
		if stat[i] == ')' && i+2 < len(stat) {
			return stat[i+2]
		}
	}
	return 0
}
