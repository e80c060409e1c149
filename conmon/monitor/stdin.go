package monitor

import (
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/monitor/sys"
)

// stdin is the container's input: the write end of a pipe, or a second descriptor of the
// terminal's master. It does not block. If the container does not read, stdin keeps the rest of
// one frame, and the monitor reads no input from clients until that rest is written.
type stdin struct {
	m       *monitor
	fd      int // -1 if there is no input or it was closed
	tty     bool
	pending []byte
	closing bool // close fd when pending is written
}

// send writes b, and keeps what the container does not accept yet. It must not be called while
// blocked returns true.
func (s *stdin) send(b []byte) {
	if s.fd < 0 || s.closing {
		return
	}
	rest := s.writeFD(b)
	if len(rest) == 0 || s.fd < 0 {
		return
	}
	s.pending = append(s.pending[:0], rest...)
	if err := s.m.poll.Add(s.fd, unix.EPOLLOUT, s); err != nil {
		s.pending = s.pending[:0]
		return
	}
	s.m.control.pauseInput(true)
}

func (s *stdin) blocked() bool { return len(s.pending) > 0 }

// Ready writes more of the pending input.
func (s *stdin) Ready(uint32) {
	rest := s.writeFD(s.pending)
	s.pending = append(s.pending[:0], rest...)
	if s.blocked() && s.fd >= 0 {
		return
	}
	s.pending = s.pending[:0]
	s.m.poll.Remove(s.fd)
	s.m.control.pauseInput(false)
	if s.closing {
		sys.CloseFD(&s.fd)
	}
}

// writeFD writes b and returns the part that the container did not accept.
func (s *stdin) writeFD(b []byte) []byte {
	for len(b) > 0 {
		n, err := sys.Write(s.fd, b)
		switch err {
		case nil:
			b = b[n:]
		case unix.EAGAIN:
			return b
		default: // EPIPE: the container has closed its end
			s.m.poll.Remove(s.fd)
			sys.CloseFD(&s.fd)
			return nil
		}
	}
	return nil
}

// close closes the input after the pending input was written. A terminal has no end of input,
// so it stays open.
func (s *stdin) close() {
	if s.tty {
		return
	}
	s.closing = true
	if !s.blocked() {
		sys.CloseFD(&s.fd)
	}
}
