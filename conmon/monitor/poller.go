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
	events   [8]unix.EpollEvent
}

func (p *poller) open() (err error) {
	p.handlers = make([]handler, 32)
	p.fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return wrapNil("epoll_create1", err)
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

// poll calls the handlers of what is ready now, and says whether anything was.
func (p *poller) poll() bool {
	n := p.look()
	p.dispatch(n)
	return n > 0
}

// block waits for events for at most timeout milliseconds, without limit if it
// is -1, or until a signal comes, as the end of a child sends one.
func (p *poller) block(timeout int) {
	if n, err := unix.EpollWait(p.fd, p.events[:], timeout); err == nil {
		p.dispatch(n)
	}
}

func (p *poller) dispatch(n int) {
	for i := range n {
		ev := &p.events[i]
		if h := p.handlers[ev.Fd]; h != nil {
			h.ready(ev.Events)
		}
	}
}

// look is a wait of no time, which need not tell the Go scheduler.
func (p *poller) look() int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}
