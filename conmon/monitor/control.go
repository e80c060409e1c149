package monitor

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/monitor/sys"
	"github.com/criserver/criserver/conmon/wire"
)

const (
	// maxClients is the highest number of connections at a time. Further connections are
	// closed.
	maxClients = 64
	// maxLingering is the highest number of lingering clients: see client.linger.
	maxLingering = 8
)

// control is the control socket and the connections to it.
type control struct {
	m           *monitor
	fd          int
	clients     []*client
	freeClients []*client // reused, because the garbage collector is off
	inputPaused bool      // no input is read from clients, because the container does not read it
}

// open makes the control socket in the working directory.
func (c *control) open() error {
	fd, err := sys.Listen(wire.ControlSocket, unix.SOCK_SEQPACKET)
	c.fd = fd
	return err
}

func (c *control) watch() error { return c.m.poll.Add(c.fd, unix.EPOLLIN, c) }

// Ready accepts a connection.
func (c *control) Ready(uint32) {
	fd, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(c.fd), 0, 0, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0, 0)
	if errno != 0 {
		return
	}
	if len(c.clients) >= maxClients || !isSameUser(int(fd)) {
		_ = unix.Close(int(fd))
		return
	}
	cl := c.newClient(int(fd))
	if c.m.poll.Add(cl.fd, unix.EPOLLIN, cl) != nil {
		c.remove(cl)
	}
}

// isSameUser reports whether the process at the other end runs as the monitor's user, root.
func isSameUser(fd int) bool {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	return err == nil && int(cred.Uid) == unix.Geteuid()
}

func (c *control) newClient(fd int) *client {
	cl := new(client)
	if n := len(c.freeClients); n > 0 {
		cl, c.freeClients = c.freeClients[n-1], c.freeClients[:n-1]
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
			c.m.poll.Remove(cl.fd)
			if c.m.deferred.client == cl {
				c.m.deferred.client = nil
			}
			cl.drainAndClose()
			c.freeClients = append(c.freeClients, cl)
			return
		}
	}
}

// handle executes a request. If later is true, the reply is sent when the operation has ended.
func (c *control) handle(cl *client, q *wire.Request) (later bool, err error) {
	switch q.Op {
	case wire.OpReopenLog:
		return false, c.m.log.Reopen()
	case wire.OpResize:
		return false, c.m.resize(q.Width, q.Height)
	case wire.OpAttach:
		cl.attach(q)
		return false, nil
	case wire.OpStart:
		return c.m.deferred.start(cl)
	case wire.OpCRIU:
		return false, c.m.deferred.watchCRIU(cl.fd)
	case wire.OpAbandon:
		return false, c.m.deferred.abandon()
	}
	return false, errUnknownOp
}

// broadcast sends container output to all clients that are attached to that stream.
func (c *control) broadcast(kind wire.Frame, data []byte) {
	for i := len(c.clients) - 1; i >= 0; i-- { // sendAll may remove the client
		if cl := c.clients[i]; cl.wants(kind) {
			cl.sendAll(kind, data)
		}
	}
}

// pauseInput stops or resumes reading input from clients.
func (c *control) pauseInput(paused bool) {
	c.inputPaused = paused
	for _, cl := range c.clients {
		cl.setInterest()
	}
}

// slowClient returns a client that has the container's stdin and whose send buffer is full, or
// nil.
func (c *control) slowClient() *client {
	for _, cl := range c.clients {
		if cl.attached && cl.stdin && !cl.lingering && !cl.writable() {
			return cl
		}
	}
	return nil
}

// countLingering returns the number of lingering clients.
func (c *control) countLingering() (n int) {
	for _, cl := range c.clients {
		if cl.lingering {
			n++
		}
	}
	return n
}

// growSendBuffers makes room for the rest of the container's output when the container has
// exited.
func (c *control) growSendBuffers() {
	for _, cl := range c.clients {
		_ = unix.SetsockoptInt(cl.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4*sendBuffer)
	}
}

// close sends the container's exit code to the attached clients and closes the socket and all
// connections.
func (c *control) close(code int32) {
	if c.fd < 0 {
		return
	}
	_ = unix.Unlink(wire.ControlSocket)
	c.m.poll.Remove(c.fd)
	sys.CloseFD(&c.fd)
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
