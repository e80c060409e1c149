package monitor

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/wire"
)

// sendBuffer is what the kernel keeps for a client that does not read, in bytes.
// It counts its own bookkeeping and doubles what it is told.
const sendBuffer = 1 << 20

var errUnknownOp = errors.New("unknown operation")

// client is one connection to the control socket. Its packets wait in the
// kernel, which bounds them, so that a client has no memory here.
//
// A client that only watches never holds the container up: when its buffer is
// full it is cut off. For one that has stdin, whose session the container is,
// the container waits as it would for any pipe, but not for ever: see hold.
type client struct {
	c                     *control
	fd                    int
	asked                 bool // it has sent its request
	attached              bool
	stdin, stdout, stderr bool
	awaited               bool // the container waits until it has read
	gone                  bool // it has left, and what it sent waits for stdin
}

func (cl *client) wants(kind wire.Frame) bool {
	return cl.attached && (kind == wire.FrameStdout && cl.stdout || kind == wire.FrameStderr && cl.stderr)
}

// ready takes one packet.
func (cl *client) ready(events uint32) {
	m := cl.c.m
	if cl.awaited && events&unix.EPOLLOUT != 0 {
		m.release()
	}
	switch {
	case cl.attached && cl.c.paused:
		if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			cl.linger()
		}
	case events&unix.EPOLLIN != 0:
		n, err := read(cl.fd, m.packet)
		m.touched(n)
		switch {
		case err == unix.EAGAIN:
		case err != nil || n == 0:
			cl.leave()
		case !cl.attached:
			cl.request(m.packet[:n])
		case n > 1+wire.MaxPayload || !cl.frame(m.packet[:n]):
			cl.leave()
		}
	case events&(unix.EPOLLHUP|unix.EPOLLERR) != 0:
		cl.leave()
	}
}

// request answers the first packet. A client says nothing more until it has its
// reply.
func (cl *client) request(b []byte) {
	if cl.asked {
		cl.leave()
		return
	}
	cl.asked = true
	err, later := errors.New("request too long"), false
	if len(b) <= wire.MaxRequest {
		var q wire.Request
		if q, err = wire.DecodeRequest(b); err == nil {
			later, err = cl.c.answer(cl, &q)
		}
	}
	if !later {
		cl.reply(err)
	}
}

// reply ends a request. Only a client that has attached stays.
func (cl *client) reply(err error) {
	failure := ""
	if err != nil {
		failure = err.Error()
	}
	_, err = write(cl.fd, wire.AppendReply(cl.c.m.packet[:0], failure[:min(len(failure), 512)]))
	if err != nil || !cl.attached {
		cl.leave()
	}
}

// attach makes the client one that sends and receives frames. None of them can
// overtake the reply, as nothing is read from the container in between.
func (cl *client) attach(q *wire.Request) {
	if q.Stdin && !cl.c.m.spec.Stdin {
		// It sees the output all the same; what it sends goes nowhere.
		q.Stdin = false
	}
	if err := unix.SetsockoptInt(cl.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer); err != nil {
		_ = unix.SetsockoptInt(cl.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	}
	cl.attached = true
	cl.stdin, cl.stdout, cl.stderr = q.Stdin, q.Stdout, q.Stderr
	cl.setInterest()
}

// frame does what a frame asks for. It returns false for one that makes no
// sense, after which the connection ends.
func (cl *client) frame(b []byte) bool {
	m := cl.c.m
	switch payload := b[1:]; wire.Frame(b[0]) {
	case wire.FrameStdin:
		if cl.stdin {
			m.stdin.put(payload)
		}
	case wire.FrameCloseStdin:
		cl.closeStdin()
	case wire.FrameResize:
		if len(payload) != 4 {
			return false
		}
		_ = m.resize(binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:]))
	default:
		return false
	}
	return true
}

// closeStdin ends the client's share in the input, and with a StdinOnce
// container, whose first such client it is, the input.
func (cl *client) closeStdin() {
	if cl.stdin && cl.c.m.spec.StdinOnce {
		cl.c.m.stdin.close()
	}
}

// leave ends the connection.
func (cl *client) leave() {
	if cl.attached {
		cl.closeStdin()
	}
	if cl.awaited {
		cl.c.m.release()
	}
	cl.c.remove(cl)
}

// hangUp closes the connection. What the client has sent is read first: the
// kernel resets a connection that is closed with something unread, and a client
// that is reset may not read the output and the exit code that wait for it.
func (cl *client) hangUp() {
	if cl.fd < 0 {
		return
	}
	_ = unix.Shutdown(cl.fd, unix.SHUT_RD) // from here on nothing more comes
	var b [1]byte                          // a read drops the rest of the packet
	for {
		if n, err := read(cl.fd, b[:]); err != nil || n == 0 {
			break
		}
	}
	closeFD(&cl.fd)
}

// linger keeps a client that has left while the container does not read its
// input, for the sake of what it sent before. Only so many are kept.
func (cl *client) linger() {
	if !cl.stdin || cl.c.gone() >= maxGone {
		cl.leave()
		return
	}
	cl.gone = true
	cl.stdout, cl.stderr = false, false
	if cl.awaited {
		cl.c.m.release()
	}
	cl.c.m.poll.drop(cl.fd) // or it would report the hang-up for ever
}

// setInterest tells the poller what to look for.
func (cl *client) setInterest() {
	var events uint32
	if !cl.attached || !cl.c.paused {
		events |= unix.EPOLLIN
	}
	if cl.awaited {
		events |= unix.EPOLLOUT
	}
	if !cl.gone {
		cl.c.m.poll.set(cl.fd, events)
	} else if events != 0 {
		cl.gone = false
		_ = cl.c.m.poll.add(cl.fd, events, cl)
	}
}

// roomy reports whether the client can take the output of one read: the kernel
// reports a socket writable when three quarters of its buffer are free. It calls
// ppoll with a timeout of 0, because newer architectures have no poll(2).
func (cl *client) roomy() bool {
	fds := [1]unix.PollFd{{Fd: int32(cl.fd), Events: unix.POLLOUT}}
	var now unix.Timespec
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	return errno != 0 || n > 0
}

func (cl *client) sendAll(kind wire.Frame, data []byte) {
	for len(data) > 0 {
		n := min(len(data), wire.MaxPayload)
		if !cl.send(kind, data[:n]) {
			cl.leave()
			return
		}
		data = data[n:]
	}
}

// send puts one frame into the client's buffer, if it fits.
func (cl *client) send(kind wire.Frame, payload []byte) bool {
	head := [1]byte{byte(kind)}
	iov := [2]unix.Iovec{{Base: &head[0], Len: 1}, {Base: unsafe.SliceData(payload), Len: uint64(len(payload))}}
	msg := unix.Msghdr{Iov: &iov[0], Iovlen: uint64(len(iov))}
	for {
		_, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(cl.fd), uintptr(unsafe.Pointer(&msg)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if errno != unix.EINTR {
			return errno == 0
		}
	}
}
