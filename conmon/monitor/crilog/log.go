// Package crilog writes the log of a container in the format of the CRI. It splits the output of the container into
// entries, limits the size of the log, and counts the bytes that are lost. It allocates nothing for each entry.
package crilog

import (
	"bytes"
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/monitor/sys"
)

// Names of the streams in the log.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// BufferSize is the usual size of the buffer of a File, in bytes. Pages of a buffer that are not used take no memory.
const BufferSize = 512 << 10

// File is a CRI log. Write errors never stop the container: entries that cannot be written
// are dropped and counted. When writing works again, an entry reports the lost bytes.
type File struct {
	path string
	fd   int // -1 without a log
	out  sys.Buffer
	n    int // bytes in out that wait for flush

	size     int64 // bytes in the file
	maxSize  int64 // of the file in bytes, or 0 for no limit
	rotateAt int64 // size of the file at which it is rotated, or 0 for never: see rotateIfFull

	deleted    int64 // bytes of older logs that rotate has deleted and not yet reported
	unreported int64 // bytes lost since the last loss notice
	lost       int64 // bytes lost or deleted in total
	lossCause  error // the last write error
	partial    bool  // the file ends within an entry
}

// Closed returns a File without a log, until Open.
func Closed() File { return File{fd: -1} }

// Open opens the log at path, or no log if path is empty. maxSize is the maximum size of the
// file in bytes, or 0 for no limit. out buffers the entries.
func (l *File) Open(path string, maxSize int64, out sys.Buffer) (err error) {
	*l = File{path: path, fd: -1, out: out, maxSize: maxSize, rotateAt: maxSize}
	if path != "" {
		l.fd, l.size, err = openLogFile(path)
	}
	return err
}

// openLogFile opens a log file for appending, and creates it if necessary. It returns the
// descriptor and the size of the file. The mode lets a group read logs. The file must not be a
// symbolic link, a FIFO or a device.
func openLogFile(path string) (fd int, size int64, err error) {
	const flags = unix.O_WRONLY | unix.O_APPEND | unix.O_CREAT | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	fd, err = unix.Open(path, flags, 0o640)
	if err != nil {
		return -1, 0, sys.Wrap("open log "+path, err)
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errors.New("not a regular file")
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, 0, sys.Wrap("open log "+path, err)
	}
	return fd, st.Size, nil
}

// IsOpen reports whether there is a log.
func (l *File) IsOpen() bool { return l.fd >= 0 }

// Lost returns the number of bytes that were lost or deleted.
func (l *File) Lost() int64 { return l.lost }

// Buffer returns the buffer of the entries. Between two events the buffer is empty, and can be used for other data.
func (l *File) Buffer() sys.Buffer { return l.out }

// Reopen opens the log file again, after the old file was renamed. If that fails, the log stays
// with the old file. The new file gets the lines that have no end yet; nothing else is in
// memory between two reads.
func (l *File) Reopen() error {
	if l.path == "" {
		return errors.New("the container has no log")
	}
	fd, size, err := openLogFile(l.path)
	if err != nil {
		return err
	}
	l.ReportLoss()
	l.replace(fd, size)
	return nil
}

// replace closes the file and continues with the file fd, which has size bytes.
func (l *File) replace(fd int, size int64) {
	_ = unix.Close(l.fd)
	l.fd, l.size, l.partial, l.rotateAt = fd, size, false, l.maxSize
}

// reserve returns space in the buffer for an entry of n bytes, at most maxEntry.
func (l *File) reserve(n int) []byte {
	if len(l.out)-l.n < n {
		l.Flush()
	}
	b := l.out[l.n : l.n+n]
	l.n += n
	return b
}

// Flush writes the buffered entries, with one system call unless the write is short.
func (l *File) Flush() {
	b := l.out[:l.n]
	l.n = 0
	if l.fd < 0 || len(b) == 0 {
		return
	}
	l.rotateIfFull(len(b))
	if l.unreported > 0 || l.partial || l.deleted > 0 {
		l.writeLossNotice()
	}
	if l.partial || l.unreported > 0 {
		l.recordLoss(len(b), l.lossCause)
		return
	}
	l.writeAll(b)
}

// writeLossNotice ends a partial entry and writes entries that report the lost bytes and the
// deleted bytes.
func (l *File) writeLossNotice() {
	var p Prefix
	p.Fill(Stderr, time.Now())
	note := make([]byte, 0, 256)
	if l.partial {
		note = append(note, '\n')
	}
	if l.deleted > 0 {
		note = append(note, p[:]...)
		note = append(note, "[conmon: "...)
		note = strconv.AppendInt(note, l.deleted, 10)
		note = append(note, " bytes of an older log were deleted: the log has reached its maximum size]\n"...)
	}
	if l.unreported > 0 {
		note = append(note, p[:]...)
		note = append(note, "[conmon: "...)
		note = strconv.AppendInt(note, l.unreported, 10)
		note = append(note, " bytes of log were lost here: "...)
		note = append(note, l.lossCause.Error()...)
		note = append(note, "]\n"...)
	}
	n, err := sys.Write(l.fd, note)
	l.size += int64(n)
	if err == nil && n == len(note) {
		l.partial, l.unreported, l.deleted = false, 0, 0
	} else if n > 0 {
		l.cutPartialEntry(note, n)
	}
}

// writeAll writes complete entries. If a write fails, the bytes of the remaining entries are lost.
func (l *File) writeAll(b []byte) {
	for rest := b; len(rest) > 0; {
		n, err := sys.Write(l.fd, rest)
		if err == nil && n == 0 {
			err = unix.ENOSPC
		}
		if err != nil {
			done := len(b) - len(rest)
			complete := l.cutPartialEntry(b, done)
			l.recordLoss(len(b)-complete, err)
			return
		}
		l.size += int64(n)
		rest = rest[n:]
	}
}

func (l *File) recordLoss(n int, err error) {
	l.unreported += int64(n)
	l.lost += int64(n)
	l.lossCause = err
}

// cutPartialEntry truncates the file after the last complete entry, after only the first n
// bytes of b were written. It returns the number of these bytes that are still in the file.
func (l *File) cutPartialEntry(b []byte, n int) int {
	complete := bytes.LastIndexByte(b[:n], '\n') + 1
	if complete == n {
		return n
	}
	var st unix.Stat_t
	err := unix.Fstat(l.fd, &st)
	if err == nil {
		err = unix.Ftruncate(l.fd, st.Size-int64(n-complete))
	}
	if l.partial = err != nil; !l.partial {
		l.size = st.Size - int64(n-complete)
	}
	return complete
}

// ReportLoss reports lost bytes when no later entry can do so: at the end of the container, and
// before another file replaces this one.
func (l *File) ReportLoss() {
	l.Flush()
	if l.fd >= 0 && (l.unreported > 0 || l.partial || l.deleted > 0) {
		l.writeLossNotice()
	}
}

// Close flushes and closes the log.
func (l *File) Close() {
	l.ReportLoss()
	sys.CloseFD(&l.fd)
}
