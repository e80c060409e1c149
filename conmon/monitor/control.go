package monitor

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/wire"
)

const (
	// maxClients bounds the connections at one time; further ones are closed.
	maxClients = 64
	// maxGone bounds those of them that have left, see client.linger.
	maxGone = 8
)

// control is the control socket and the connections to it.
type control struct {
	m       *monitor
	fd      int
	clients []*client
	idle    []*client // for use again: nothing collects garbage here
	paused  bool      // clients' input is not read
}

// open makes the socket in the working directory.
func (c *control) open() error {
	fd, err := listen(wire.ControlSocket, unix.SOCK_SEQPACKET)
	c.fd = fd
	return err
}

func (c *control) watch() error { return c.m.poll.add(c.fd, unix.EPOLLIN, c) }

// ready takes a connection.
func (c *control) ready(uint32) {
	fd, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(c.fd), 0, 0, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0, 0)
	if errno != 0 {
		return
	}
	if len(c.clients) >= maxClients || !ownPeer(int(fd)) {
		_ = unix.Close(int(fd))
		return
	}
	cl := c.newClient(int(fd))
	if c.m.poll.add(cl.fd, unix.EPOLLIN, cl) != nil {
		c.remove(cl)
	}
}

// ownPeer says whether the process at the other end is of this user, root.
func ownPeer(fd int) bool {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	return err == nil && int(cred.Uid) == unix.Geteuid()
}

func (c *control) newClient(fd int) *client {
	cl := new(client)
	if n := len(c.idle); n > 0 {
		cl, c.idle = c.idle[n-1], c.idle[:n-1]
	}
	*cl = client{c: c, fd: fd}
	c.clients = append(c.clients, cl)
	return cl
}

func (c *control) remove(cl *client) {
	for i, other := range c.clients {
		if other == cl {
			last := len(c.clients) - 1
			c.clients[i] = c.clients[last]
			c.clients = c.clients[:last]
			c.m.poll.drop(cl.fd)
			if c.m.guest.asker == cl {
				c.m.guest.asker = nil
			}
			cl.hangUp()
			c.idle = append(c.idle, cl)
			return
		}
	}
}

// answer does what a request asks for. later says that the reply comes when it is
// done.
func (c *control) answer(cl *client, q *wire.Request) (later bool, err error) {
	switch q.Op {
	case wire.OpReopenLog:
		return false, c.m.log.reopen()
	case wire.OpResize:
		return false, c.m.resize(q.Width, q.Height)
	case wire.OpAttach:
		cl.attach(q)
		return false, nil
	case wire.OpStart:
		return c.m.guest.start(cl)
	case wire.OpAbandon:
		return false, c.m.guest.abandon()
	}
	return false, errUnknownOp
}

// broadcast sends container output to whoever is attached to it.
func (c *control) broadcast(kind wire.Frame, data []byte) {
	for i := len(c.clients) - 1; i >= 0; i-- { // send may remove the client
		if cl := c.clients[i]; cl.wants(kind) {
			cl.sendAll(kind, data)
		}
	}
}

// pauseInput stops or goes on reading what clients send.
func (c *control) pauseInput(paused bool) {
	c.paused = paused
	for _, cl := range c.clients {
		cl.setInterest()
	}
}

// laggard returns a client for which the container has to wait, or nil.
func (c *control) laggard() *client {
	for _, cl := range c.clients {
		if cl.attached && cl.stdin && !cl.gone && !cl.roomy() {
			return cl
		}
	}
	return nil
}

// gone counts the clients that have left but still have input to give.
func (c *control) gone() (n int) {
	for _, cl := range c.clients {
		if cl.gone {
			n++
		}
	}
	return n
}

// grow lets every client take what the container has left, at its end.
func (c *control) grow() {
	for _, cl := range c.clients {
		_ = unix.SetsockoptInt(cl.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4*sendBuffer)
	}
}

// close tells the clients the container's exit code and ends the service.
func (c *control) close(code int32) {
	if c.fd < 0 {
		return
	}
	_ = unix.Unlink(wire.ControlSocket)
	c.m.poll.drop(c.fd)
	closeFD(&c.fd)
	var payload [4]byte
	binary.BigEndian.PutUint32(payload[:], uint32(code))
	for len(c.clients) > 0 {
		cl := c.clients[len(c.clients)-1]
		if cl.attached {
			cl.send(wire.FrameExit, payload[:])
		}
		c.remove(cl)
	}
}
