package monitor

import (
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/monitor/sys"
	"github.com/criserver/criserver/conmon/wire"
)

// recordAttempts and recordRetryDelay limit the attempts to write an exit record to a file
// system that is full.
const (
	recordAttempts   = 20
	recordRetryDelay = 250 * time.Millisecond
)

// recordExit ends the container for the outside: it drains the streams into the log, writes the
// exit record, and sends the exit code to attached clients. The log is complete before the
// record appears. Processes that outlive the first one and hold the streams open do not delay
// the record.
func (m *monitor) recordExit() {
	if m.slowClient != nil {
		m.resumeOutput()
	}
	m.control.growSendBuffers()
	for i := range m.streams {
		m.streams[i].drain()
	}
	m.log.ReportLoss()
	e := m.init.exitRecord()
	m.writeExitRecord(&e)
	m.exitRecorded = true
	m.exitDeadline = time.Now().Add(drainTimeout)
	m.stdin.fd = m.closePolled(m.stdin.fd)
	m.control.close(e.ExitCode)
}

// closePolled closes a descriptor that may be in the epoll set, and returns -1.
func (m *monitor) closePolled(fd int) int {
	m.poll.Remove(fd)
	sys.CloseFD(&fd)
	return fd
}

// writeExitRecord writes the exit record. If all attempts fail, the daemon sees a monitor that
// exited without a record.
func (m *monitor) writeExitRecord(e *wire.Exit) {
	b := wire.AppendExit(nil, e)
	for range recordAttempts {
		if replaceFile(m.spec.ExitFile, b) == nil {
			return
		}
		_ = unix.Nanosleep(&unix.Timespec{Nsec: int64(recordRetryDelay)}, nil)
	}
}

// replaceFile replaces the file name atomically.
func replaceFile(name string, b []byte) error {
	temp := path.Join(path.Dir(name), "."+path.Base(name)+".new")
	fd, err := unix.Open(temp, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	n, err := sys.Write(fd, b)
	if err == nil && n < len(b) {
		err = unix.ENOSPC
	}
	_ = unix.Close(fd)
	if err == nil {
		err = unix.Rename(temp, name)
	}
	if err != nil {
		_ = unix.Unlink(temp)
	}
	return err
}
