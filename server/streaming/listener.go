package streaming

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// listener knows all connections, and when their clients have left. net/http
// knows neither of a connection that was upgraded; and who reads it learns of
// its end only after all that was sent before, which a command may never read.
type listener struct {
	*net.TCPListener
	fd    int      // of an epoll set that tells of hang-ups
	epoll *os.File // the same, watched by Go's poller in its turn

	mu    sync.Mutex // guards all below
	conns map[int32]*conn
	last  int32
	ended bool
}

func newListener(l *net.TCPListener) (*listener, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // for Go's poller
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &listener{TCPListener: l, fd: fd, epoll: os.NewFile(uintptr(fd), "epoll"), conns: make(map[int32]*conn)}, nil
}

// Accept returns a *conn.
func (l *listener) Accept() (net.Conn, error) {
	for {
		tcp, err := l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		c := &conn{TCPConn: tcp, l: l}
		if l.add(c) == nil {
			return c, nil
		}
		_ = tcp.Close() // one connection less is no reason to stop
	}
}

func (l *listener) add(c *conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return net.ErrClosed
	}
	for l.last++; l.conns[l.last] != nil; l.last++ { // after 2³² connections
	}
	c.id = l.last
	var failure error
	err = raw.Control(func(fd uintptr) {
		// The data of the event is the number of the connection, not the
		// descriptor, which may be another one's when the event is taken.
		failure = unix.EpollCtl(l.fd, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: c.id})
	})
	if err := errors.Join(err, failure); err != nil {
		return err
	}
	l.conns[c.id] = c
	return nil
}

// watch takes hang-ups until release.
func (l *listener) watch() error {
	raw, err := l.epoll.SyscallConn()
	if err != nil {
		return err
	}
	events := make([]unix.EpollEvent, 16)
	for {
		n := 0
		var failure error
		err := raw.Read(func(fd uintptr) bool {
			n, failure = unix.EpollWait(int(fd), events, 0)
			return n > 0 || failure != nil && !errors.Is(failure, unix.EINTR)
		})
		switch {
		case err != nil && l.ending():
			return nil
		case err != nil || failure != nil:
			return fmt.Errorf("watch connections: %w", errors.Join(err, failure))
		}
		for _, e := range events[:n] {
			if c := l.take(e.Fd); c != nil {
				_ = c.shut(errLeft)
			}
		}
	}
}

func (l *listener) ending() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

func (l *listener) take(id int32) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conns[id]
}

func (l *listener) remove(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c.id)
}

// cut ends all connections at once.
func (l *listener) cut() {
	l.mu.Lock()
	l.ended = true
	all := make([]*conn, 0, len(l.conns))
	for _, c := range l.conns {
		all = append(all, c)
	}
	l.mu.Unlock()
	for _, c := range all {
		_ = c.shut(errEnding)
	}
}

// release ends watch.
func (l *listener) release() error { return l.epoll.Close() }
