package monitor

import (
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/wire"
)

// recordTries and recordPause are how often, and how far apart, it is tried to
// write an exit record, should the file system be full.
const (
	recordTries = 20
	recordPause = 250 * time.Millisecond
)

// conclude makes the end of the container known. All that was in its streams is
// in the log before the record appears; a process that lives on, and may hold
// the streams open, delays nothing.
func (m *monitor) conclude() {
	if m.awaited != nil {
		m.release()
	}
	m.control.grow()
	for i := range m.streams {
		m.streams[i].drain()
	}
	m.log.settle()
	e := m.init.exit()
	m.record(&e)
	m.recorded = true
	m.leaveBy = time.Now().Add(aftermath)
	m.stdin.fd = m.shut(m.stdin.fd)
	m.control.close(e.ExitCode)
}

// shut closes a descriptor that may be polled.
func (m *monitor) shut(fd int) int {
	m.poll.drop(fd)
	closeFD(&fd)
	return fd
}

// record writes the exit record. When that cannot be done the daemon sees a
// monitor that left without one.
func (m *monitor) record(e *wire.Exit) {
	b := wire.AppendExit(nil, e)
	for range recordTries {
		if writeRecord(m.spec.ExitFile, b) == nil {
			return
		}
		_ = unix.Nanosleep(&unix.Timespec{Nsec: int64(recordPause)}, nil)
	}
}

// writeRecord replaces the file at name in one step.
func writeRecord(name string, b []byte) error {
	temp := path.Join(path.Dir(name), "."+path.Base(name)+".new")
	fd, err := unix.Open(temp, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	n, err := write(fd, b)
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
