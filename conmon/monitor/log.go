package monitor

import (
	"bytes"
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// logFile is a CRI log. Its failures are counted and never keep the container
// waiting: what cannot be written is dropped, and an entry says so once writing
// works again.
type logFile struct {
	path string
	fd   int // -1 without a log
	out  buffer
	n    int // bytes in out that wait for flush

	missing int64 // bytes lost since the last entry that told of any
	lost    int64 // bytes lost in all
	why     error // the last reason
	torn    bool  // the file ends within an entry
}

// open opens the log at path, or none at "". Entries are put together in out.
func (l *logFile) open(path string, out buffer) (err error) {
	*l = logFile{path: path, fd: -1, out: out}
	if path != "" {
		l.fd, err = openLogFile(path)
	}
	return err
}

// openLogFile opens a log for appending, or makes it. The mode lets a group of
// log readers in. A symbolic link, a FIFO or a device at its place is an error.
func openLogFile(path string) (int, error) {
	const flags = unix.O_WRONLY | unix.O_APPEND | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	fd, err := unix.Open(path, flags, 0o640)
	if err != nil {
		return -1, wrap("open log "+path, err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errors.New("not a regular file")
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, wrap("open log "+path, err)
	}
	return fd, nil
}

// reopen opens the file anew, after the old one was renamed. On failure the log
// stays with the old one. Nothing waits in memory between two reads but the
// parts of lines that have no end yet; those go to the new file.
func (l *logFile) reopen() error {
	if l.path == "" {
		return errors.New("the container has no log")
	}
	fd, err := openLogFile(l.path)
	if err != nil {
		return err
	}
	l.settle()
	_ = unix.Close(l.fd)
	l.fd, l.torn = fd, false
	return nil
}

// room returns the place for an entry of n bytes, at most maxEntry.
func (l *logFile) room(n int) []byte {
	if len(l.out)-l.n < n {
		l.flush()
	}
	b := l.out[l.n : l.n+n]
	l.n += n
	return b
}

// flush writes what waits, in one call unless the disk takes less.
func (l *logFile) flush() {
	b := l.out[:l.n]
	l.n = 0
	if l.fd < 0 || len(b) == 0 {
		return
	}
	if l.missing > 0 || l.torn {
		l.tell()
	}
	if l.torn || l.missing > 0 {
		l.lose(len(b), l.why)
		return
	}
	l.writeAll(b)
}

// tell ends a torn entry and says how much is missing.
func (l *logFile) tell() {
	var p prefix
	p.set(stderr, time.Now())
	note := make([]byte, 0, 256)
	if l.torn {
		note = append(note, '\n')
	}
	if l.missing > 0 {
		note = append(note, p[:]...)
		note = append(note, "[conmon: "...)
		note = strconv.AppendInt(note, l.missing, 10)
		note = append(note, " bytes of log were lost here: "...)
		note = append(note, l.why.Error()...)
		note = append(note, "]\n"...)
	}
	if n, err := write(l.fd, note); err == nil && n == len(note) {
		l.torn, l.missing = false, 0
	} else if n > 0 {
		l.untear(note, n)
	}
}

func (l *logFile) writeAll(b []byte) {
	for rest := b; len(rest) > 0; {
		n, err := write(l.fd, rest)
		if err == nil && n == 0 {
			err = unix.ENOSPC
		}
		if err != nil {
			done := len(b) - len(rest)
			whole := l.untear(b, done)
			l.lose(len(b)-whole, err)
			return
		}
		rest = rest[n:]
	}
}

func (l *logFile) lose(n int, err error) {
	l.missing += int64(n)
	l.lost += int64(n)
	l.why = err
}

// untear cuts the file back to the last whole entry after only n bytes of b got
// into it. It returns how many of them stay.
func (l *logFile) untear(b []byte, n int) int {
	whole := bytes.LastIndexByte(b[:n], '\n') + 1
	if whole == n {
		return n
	}
	var st unix.Stat_t
	err := unix.Fstat(l.fd, &st)
	if err == nil {
		err = unix.Ftruncate(l.fd, st.Size-int64(n-whole))
	}
	l.torn = err != nil
	return whole
}

// settle tells of lost bytes where no further entry may follow that would: at
// the end of the container, and before another file takes the place of this one.
func (l *logFile) settle() {
	l.flush()
	if l.fd >= 0 && (l.missing > 0 || l.torn) {
		l.tell()
	}
}

// close ends the log.
func (l *logFile) close() {
	l.settle()
	closeFD(&l.fd)
}
