package monitor

import (
	"golang.org/x/sys/unix"
)

// stdin is the container's input: the write end of a pipe, or a second
// descriptor of the terminal's master. It is not blocking. What does not fit is
// kept, one frame of it, and no client is read until it has gone.
type stdin struct {
	m       *monitor
	fd      int // -1 when there is none, or no more
	tty     bool
	pending []byte
	closing bool // to be closed when pending has gone
}

// put writes b, or keeps what the container does not take yet. It must not be
// called while full.
func (s *stdin) put(b []byte) {
	if s.fd < 0 || s.closing {
		return
	}
	rest := s.write(b)
	if len(rest) == 0 || s.fd < 0 {
		return
	}
	s.pending = append(s.pending[:0], rest...)
	if err := s.m.poll.add(s.fd, unix.EPOLLOUT, s); err != nil {
		s.pending = s.pending[:0]
		return
	}
	s.m.control.pauseInput(true)
}

func (s *stdin) full() bool { return len(s.pending) > 0 }

// ready goes on with what was kept.
func (s *stdin) ready(uint32) {
	rest := s.write(s.pending)
	s.pending = append(s.pending[:0], rest...)
	if s.full() && s.fd >= 0 {
		return
	}
	s.pending = s.pending[:0]
	s.m.poll.drop(s.fd)
	s.m.control.pauseInput(false)
	if s.closing {
		closeFD(&s.fd)
	}
}

// write returns what the container did not take.
func (s *stdin) write(b []byte) []byte {
	for len(b) > 0 {
		n, err := write(s.fd, b)
		switch err {
		case nil:
			b = b[n:]
		case unix.EAGAIN:
			return b
		default: // EPIPE: the container has closed its end
			s.m.poll.drop(s.fd)
			closeFD(&s.fd)
			return nil
		}
	}
	return nil
}

// close ends the input once everything is in it. A terminal has no end of its
// own: it stays.
func (s *stdin) close() {
	if s.tty {
		return
	}
	s.closing = true
	if !s.full() {
		closeFD(&s.fd)
	}
}
