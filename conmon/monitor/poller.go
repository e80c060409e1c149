package monitor

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// handler is what a descriptor's events go to. It may be called for an event
// that no longer holds, and then finds EAGAIN.
type handler interface {
	ready(events uint32)
}

// poller is an epoll set and the handlers of what is in it.
type poller struct {
	fd       int
	handlers []handler // by descriptor
	events   [16]unix.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, wrap("epoll_create1", err)
	}
	return &poller{fd: fd, handlers: make([]handler, 32)}, nil
}

// add has h called on events of fd. Errors and hang-ups are always among them.
func (p *poller) add(fd int, events uint32, h handler) error {
	for len(p.handlers) <= fd {
		p.handlers = append(p.handlers, nil)
	}
	p.handlers[fd] = h
	if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
		p.handlers[fd] = nil
		return wrap("epoll_ctl", err)
	}
	return nil
}

// set changes the events of fd. Events that hold already are reported anew,
// also with EPOLLET.
func (p *poller) set(fd int, events uint32) {
	_ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

// drop forgets fd, which the caller closes.
func (p *poller) drop(fd int) {
	if fd >= 0 && fd < len(p.handlers) && p.handlers[fd] != nil {
		p.handlers[fd] = nil
		_ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil)
	}
}

// wait calls the handlers of what is ready, after at most timeout milliseconds,
// or -1 for no limit. It returns how many there were; none, too, when a signal
// came, as the end of a child sends.
func (p *poller) wait(timeout int) int {
	n := p.look()
	if n == 0 && timeout != 0 {
		n, _ = unix.EpollWait(p.fd, p.events[:], timeout)
	}
	for i := range max(n, 0) {
		ev := &p.events[i]
		if h := p.handlers[ev.Fd]; h != nil {
			h.ready(ev.Events)
		}
	}
	return n
}

// look is a wait of no time, which need not tell the Go scheduler.
func (p *poller) look() int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}
