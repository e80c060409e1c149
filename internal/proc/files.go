package proc

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxDescriptors is the highest number of descriptors that CountDescriptors counts. The
// processes of a container can open millions of files, and each costs a system call.
const maxDescriptors = 1 << 17

// Descriptors counts the open file descriptors of processes.
type Descriptors struct {
	Files   uint64 // all descriptors
	Sockets uint64 // descriptors of sockets
}

// CountDescriptors counts the open file descriptors of processes. Processes that have exited
// count as having none. ok is false if there are too many descriptors, or if the caller has no
// permission.
func CountDescriptors(pids []int) (d Descriptors, ok bool) {
	for _, pid := range pids {
		err := d.count("/proc/" + strconv.Itoa(pid) + "/fd")
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH) {
			return Descriptors{}, false
		}
	}
	return d, true
}

var errTooMany = errors.New("too many file descriptors to count")

// count adds the descriptors in /proc/PID/fd. It reads the links but never follows them,
// because a file can be on a file system that does not answer.
func (d *Descriptors) count(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	var target [len("socket:")]byte
	for {
		names, err := f.Readdirnames(1024)
		for _, name := range names {
			n, err := unix.Readlinkat(int(f.Fd()), name, target[:])
			if err != nil {
				continue // closed meanwhile
			}
			d.Files++
			if strings.HasPrefix(string(target[:n]), "socket:") {
				d.Sockets++
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case d.Files > maxDescriptors:
			return errTooMany
		}
	}
}

// OpenFilesLimit returns the soft limit on the number of open files of a process (RLIMIT_NOFILE). ok
// is false if there is no limit or no such process.
func OpenFilesLimit(pid int) (n uint64, ok bool) {
	if pid <= 0 { // prlimit(2) takes 0 for the calling process
		return 0, false
	}
	var l unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &l); err != nil {
		return 0, false
	}
	return l.Cur, l.Cur != unix.RLIM_INFINITY
}
