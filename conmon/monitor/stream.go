package monitor

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/wire"
)

// The names of the streams in the log.
const (
	stdout = "stdout"
	stderr = "stderr"
)

// Sizes in bytes. A pipe that holds much and is read in large pieces costs the
// container few waits and the monitor few calls; memory that is not touched is
// not there.
const (
	pipeSize = 1 << 20
	readSize = 256 << 10
	outSize  = 512 << 10
)

// When reads follow each other within briskly, the container writes without a
// pause, and the next read is put off until there is more to read at once. The
// delay is what a writer of 2 GB/s needs to fill the pipe.
const (
	briskly     = 250 * time.Microsecond
	bytesPerLag = 2 // a nanosecond
)

// stream is one output of the container: the read end of a pipe, or the master
// of the terminal.
type stream struct {
	m     *monitor
	fd    int // -1 after its end
	name  string
	kind  wire.Frame
	tty   bool
	size  int // what the pipe can hold, in bytes
	lines lines
}

func (s *stream) set(m *monitor, fd int, name string, kind wire.Frame) {
	*s = stream{m: m, fd: fd, name: name, kind: kind, tty: m.spec.Terminal, size: 64 << 10}
	if size, err := unix.FcntlInt(uintptr(fd), unix.F_GETPIPE_SZ, 0); err == nil {
		s.size = size
	}
}

func (s *stream) open() bool { return s.fd >= 0 }

// watch starts to read the stream. A terminal is watched for changes only, as
// one that every process has closed reports a hang-up for ever, yet may be
// opened again.
func (s *stream) watch() error {
	if !s.open() {
		return nil
	}
	return s.m.poll.add(s.fd, s.interest(), s)
}

func (s *stream) interest() uint32 {
	if s.tty {
		return unix.EPOLLIN | unix.EPOLLET
	}
	return unix.EPOLLIN
}

// ready reads once: what is left is reported again.
func (s *stream) ready(uint32) {
	if s.m.held() {
		return
	}
	n, end := s.pump()
	if s.tty {
		// A terminal gives little at once.
		for reads := 1; n > 0 && reads < 16; reads++ {
			n, end = s.pump()
		}
		if n > 0 {
			s.m.poll.set(s.fd, s.interest())
		}
		end = end && s.m.recorded
	}
	if end {
		s.finish()
	}
}

// pump moves what one read brings. end says that nothing more will come, n is 0
// also when nothing is there now.
func (s *stream) pump() (n int, end bool) {
	n, err := read(s.fd, s.m.in)
	if err != nil || n == 0 {
		return 0, err != unix.EAGAIN
	}
	s.m.took(s, n)
	s.deliver(s.m.in[:n])
	return n, false
}

func (s *stream) deliver(data []byte) {
	log := &s.m.log
	if log.fd >= 0 {
		var p prefix
		p.set(s.name, time.Now())
		s.lines.cut(log, &p, data)
		log.flush()
	}
	s.m.control.broadcast(s.kind, data)
}

// drain moves what is in the stream now. It does not wait, nor go on for ever
// if somebody keeps writing.
func (s *stream) drain() {
	for moved := 0; s.open() && moved <= s.size; {
		n, end := s.pump()
		if end {
			s.finish()
		}
		if n == 0 {
			break
		}
		moved += n
	}
	if s.m != nil {
		s.endLine()
	}
}

// endLine logs the unfinished line.
func (s *stream) endLine() {
	var p prefix
	p.set(s.name, time.Now())
	s.lines.end(&s.m.log, &p)
	s.m.log.flush()
}

// finish ends the stream.
func (s *stream) finish() {
	if s.open() {
		s.endLine()
		s.m.poll.drop(s.fd)
		closeFD(&s.fd)
	}
}
