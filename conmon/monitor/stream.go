package monitor

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/monitor/crilog"
	"github.com/criserver/criserver/conmon/monitor/sys"
	"github.com/criserver/criserver/conmon/wire"
)

// Sizes of buffers, in bytes. With a large pipe and large reads, the container rarely waits and
// the monitor needs few system calls. Pages of a buffer that are not used take no memory.
const (
	pipeSize    = 1 << 20
	readBufSize = 256 << 10
)

// If a read follows the previous one within burstInterval, the container writes without a
// pause. Then the monitor delays the next read until there is more to read. The delay is the
// time in which a writer of 2 GB/s fills the pipe.
const (
	burstInterval = 250 * time.Microsecond
	fillRate      = 2 // bytes per nanosecond
)

// stream is one output of the container: the read end of a pipe, or the master of the terminal.
type stream struct {
	m     *monitor
	fd    int // -1 after the end of the stream
	name  string
	kind  wire.Frame
	tty   bool
	size  int // capacity of the pipe in bytes
	lines crilog.Lines
}

func (s *stream) init(m *monitor, fd int, name string, kind wire.Frame) {
	*s = stream{m: m, fd: fd, name: name, kind: kind, tty: m.spec.Terminal, size: 64 << 10}
	if size, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0); err == nil {
		s.size = size
	}
}

func (s *stream) open() bool { return s.fd >= 0 }

// watch adds the stream to the epoll set. A terminal is edge-triggered: when every process has
// closed it, it reports a hang-up as long as this lasts, but a process may open it again.
func (s *stream) watch() error {
	if !s.open() {
		return nil
	}
	return s.m.poll.Add(s.fd, s.interest(), s)
}

func (s *stream) interest() uint32 {
	if s.tty {
		return unix.EPOLLIN | unix.EPOLLET
	}
	return unix.EPOLLIN
}

// Ready reads once. If there is more data, epoll reports the stream again.
func (s *stream) Ready(uint32) {
	if s.m.outputPaused() {
		return
	}
	n, end := s.readOnce()
	if s.tty {
		// One read of a terminal returns little.
		for reads := 1; n > 0 && reads < 16; reads++ {
			n, end = s.readOnce()
		}
		if n > 0 {
			s.m.poll.Modify(s.fd, s.interest())
		}
		end = end && s.m.exitRecorded
	}
	if end {
		s.finish()
	}
}

// readOnce reads once and delivers the data. It returns 0 if there is no data now, and end if
// the stream has ended.
func (s *stream) readOnce() (n int, end bool) {
	n, err := sys.Read(s.fd, s.m.readBuf)
	if err != nil || n == 0 {
		return 0, err != unix.EAGAIN
	}
	s.m.noteRead(s, n)
	s.deliver(s.m.readBuf[:n])
	return n, false
}

// deliver writes data to the log and sends it to attached clients.
func (s *stream) deliver(data []byte) {
	log := &s.m.log
	if log.IsOpen() {
		var p crilog.Prefix
		now := time.Now()
		p.Fill(s.name, now)
		s.lines.Split(log, &p, now, data)
		log.Flush()
	}
	s.m.control.broadcast(s.kind, data)
}

// drain delivers the data that is in the stream now. It does not wait, and it stops after the
// capacity of the pipe, because other processes may go on writing.
func (s *stream) drain() {
	for moved := 0; s.open() && moved <= s.size; {
		n, end := s.readOnce()
		if end {
			s.finish()
		}
		if n == 0 {
			break
		}
		moved += n
	}
	if s.m != nil {
		s.flushLine()
	}
}

// idle reports whether the next read will not come soon: there is nothing to read, or the output
// is paused. On a busy host, the end of a line can be in the pipe before the line is overdue.
func (s *stream) idle() bool {
	if s.m.slowClient != nil {
		return true
	}
	unread, err := unix.IoctlGetInt(s.fd, unix.TIOCINQ)
	return err != nil || unread == 0
}

// flushLine writes the unfinished line to the log.
func (s *stream) flushLine() {
	s.m.noteBufferUse(s.lines.Pending())
	var p crilog.Prefix
	p.Fill(s.name, time.Now())
	s.lines.Flush(&s.m.log, &p)
	s.m.log.Flush()
}

// finish closes the stream.
func (s *stream) finish() {
	if s.open() {
		s.flushLine()
		s.m.poll.Remove(s.fd)
		sys.CloseFD(&s.fd)
	}
}
