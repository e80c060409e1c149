package proc

import "golang.org/x/sys/unix"

// OpenFiles returns how many files the process may have open at once, its soft
// limit. ok is false when there is no limit, and no such process.
func OpenFiles(pid int) (n uint64, ok bool) {
	if pid <= 0 { // 0 would be this process
		return 0, false
	}
	var l unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &l); err != nil {
		return 0, false
	}
	return l.Cur, l.Cur != unix.RLIM_INFINITY
}
