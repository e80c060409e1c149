package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Handler handles the events of a descriptor. Ready may be called for an event that has already
// been handled; a read then returns EAGAIN.
type Handler interface {
	Ready(events uint32)
}

// Poller is an epoll set with the handlers of its descriptors. Open makes the set.
type Poller struct {
	fd       int
	handlers []Handler // by descriptor
	events   [8]unix.EpollEvent
}

// Open makes the epoll set.
func (p *Poller) Open() (err error) {
	p.handlers = make([]Handler, 32)
	p.fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return WrapIf("epoll_create1", err)
}

// Add calls h.Ready on events of fd. Errors and hang-ups are always reported.
func (p *Poller) Add(fd int, events uint32, h Handler) error {
	for len(p.handlers) <= fd {
		p.handlers = append(p.handlers, nil)
	}
	p.handlers[fd] = h
	if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
		p.handlers[fd] = nil
		return Wrap("epoll_ctl", err)
	}
	return nil
}

// Modify changes the events of fd. Conditions that already hold are reported again, also with
// EPOLLET.
func (p *Poller) Modify(fd int, events uint32) {
	_ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

// Remove removes fd from the set. The caller closes fd.
func (p *Poller) Remove(fd int) {
	if fd >= 0 && fd < len(p.handlers) && p.handlers[fd] != nil {
		p.handlers[fd] = nil
		_ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil)
	}
}

// Poll calls the handlers of all descriptors that are ready now, and reports whether there were
// any.
func (p *Poller) Poll() bool {
	n := p.epollNow()
	p.dispatch(n)
	return n > 0
}

// Wait waits for events for at most timeout milliseconds, or without limit if timeout is -1. A
// signal, such as the SIGCHLD of a child, ends the wait.
func (p *Poller) Wait(timeout int) {
	if n, err := unix.EpollWait(p.fd, p.events[:], timeout); err == nil {
		p.dispatch(n)
	}
}

func (p *Poller) dispatch(n int) {
	for i := range n {
		ev := &p.events[i]
		if h := p.handlers[ev.Fd]; h != nil {
			h.Ready(ev.Events)
		}
	}
}

// epollNow is epoll_wait with a timeout of 0. It does not block, so the Go scheduler need not
// know about the system call.
func (p *Poller) epollNow() int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}
