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

// maxDescriptors bounds what CountDescriptors looks at: the processes of a
// container can open millions of files, and each costs a system call.
const maxDescriptors = 1 << 17

// Descriptors are the open file descriptors of processes.
type Descriptors struct {
	Files   uint64 // all of them
	Sockets uint64 // those that are sockets
}

// CountDescriptors counts the open file descriptors of processes. A process that
// has ended has none. ok is false if there are too many to count, or if the caller
// may not look at a process.
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

// count adds what the directory of a process lists. It reads the links and never
// follows them: a file can be on a file system that does not answer.
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
				continue // closed since
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
