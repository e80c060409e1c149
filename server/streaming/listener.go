package streaming

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// listener tracks all connections and notices when a client closes its side.
//
// net/http does not track a connection after an upgrade. A reader of the connection
// would notice its end only after all data that was sent before, which a command may
// never read. Therefore an epoll set reports the hang-up of each client.
type listener struct {
	*net.TCPListener
	fd    int      // the epoll set
	epoll *os.File // the same descriptor, watched by the poller of Go

	mu     sync.Mutex // guards the fields below
	conns  map[int32]*conn
	lastID int32
	closed bool // closeConns was called
}

func newListener(l *net.TCPListener) (*listener, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // required by the poller of Go
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &listener{TCPListener: l, fd: fd, epoll: os.NewFile(uintptr(fd), "epoll"), conns: make(map[int32]*conn)}, nil
}

// Accept returns the next connection, which is a *conn.
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
		_ = tcp.Close() // a failure of one connection must not stop the server
	}
}

// add tracks a connection.
func (l *listener) add(c *conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	for l.lastID++; l.conns[l.lastID] != nil; l.lastID++ { // ids wrap around after 2³² connections
	}
	c.id = l.lastID
	var ctlErr error
	err = raw.Control(func(fd uintptr) {
		// The event carries the id of the connection, because the descriptor can
		// belong to another connection when the event is read.
		ctlErr = unix.EpollCtl(l.fd, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: c.id})
	})
	if err := errors.Join(err, ctlErr); err != nil {
		return err
	}
	l.conns[c.id] = c
	return nil
}

// watchHangups closes the connections whose clients hang up, until closeEpoll is
// called.
func (l *listener) watchHangups() error {
	raw, err := l.epoll.SyscallConn()
	if err != nil {
		return err
	}
	events := make([]unix.EpollEvent, 16)
	for {
		n := 0
		var waitErr error
		err := raw.Read(func(fd uintptr) bool {
			n, waitErr = unix.EpollWait(int(fd), events, 0)
			return n > 0 || waitErr != nil && !errors.Is(waitErr, unix.EINTR)
		})
		switch {
		case err != nil && l.isClosed():
			return nil
		case err != nil || waitErr != nil:
			return fmt.Errorf("watch connections: %w", errors.Join(err, waitErr))
		}
		for _, e := range events[:n] {
			if c := l.conn(e.Fd); c != nil {
				_ = c.closeNow(errClientLeft)
			}
		}
	}
}

func (l *listener) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// conn returns the connection with an id, or nil if it was closed.
func (l *listener) conn(id int32) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conns[id]
}

func (l *listener) remove(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c.id)
}

// closeConns closes all connections without waiting. The listener accepts no more
// connections.
func (l *listener) closeConns() {
	l.mu.Lock()
	l.closed = true
	all := make([]*conn, 0, len(l.conns))
	for _, c := range l.conns {
		all = append(all, c)
	}
	l.mu.Unlock()
	for _, c := range all {
		_ = c.closeNow(errStopping)
	}
}

// closeEpoll closes the epoll set, which ends watchHangups.
func (l *listener) closeEpoll() error { return l.epoll.Close() }
