package monitor

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/monitor/sys"
	"github.com/criserver/criserver/conmon/wire"
)

// sendBuffer is the size of a client's socket buffer, in bytes. The kernel doubles the value,
// and counts its own bookkeeping.
const sendBuffer = 1 << 20

var errUnknownOp = errors.New("unknown operation")

// client is one connection to the control socket. Packets for the client wait in the socket
// buffer, whose size is limited. So a client needs no memory in the monitor.
//
// A client that is attached without stdin never delays the container: when its buffer is full,
// the monitor disconnects the client. For a client with stdin the container's output is paused,
// as it would be with a full pipe, but only for slowClientTimeout: see pauseOutput.
type client struct {
	c                     *control
	fd                    int
	requested             bool // the client has sent its request
	attached              bool
	stdin, stdout, stderr bool
	blocking              bool // the container's output is paused until this client reads
	lingering             bool // the client has closed its end, and its input waits for stdin
}

func (cl *client) wants(kind wire.Frame) bool {
	return cl.attached && (kind == wire.FrameStdout && cl.stdout || kind == wire.FrameStderr && cl.stderr)
}

// Ready reads one packet.
func (cl *client) Ready(events uint32) {
	m := cl.c.m
	if cl.blocking && events&unix.EPOLLOUT != 0 {
		m.resumeOutput()
	}
	switch {
	case cl.attached && cl.c.inputPaused:
		if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			cl.linger()
		}
	case events&unix.EPOLLIN != 0:
		n, err := sys.Read(cl.fd, m.packetBuf)
		m.noteBufferUse(n)
		switch {
		case err == unix.EAGAIN:
		case err != nil || n == 0:
			cl.disconnect()
		case !cl.attached:
			cl.handleRequest(m.packetBuf[:n])
		case n > 1+wire.MaxPayload || !cl.handleFrame(m.packetBuf[:n]):
			cl.disconnect()
		}
	case events&(unix.EPOLLHUP|unix.EPOLLERR) != 0:
		cl.disconnect()
	}
}

// handleRequest handles the first packet. A client must not send more before it has the reply.
func (cl *client) handleRequest(b []byte) {
	if cl.requested {
		cl.disconnect()
		return
	}
	cl.requested = true
	err, later := errors.New("request too long"), false
	if len(b) <= wire.MaxRequest {
		var q wire.Request
		if q, err = wire.DecodeRequest(b); err == nil {
			later, err = cl.c.handle(cl, &q)
		}
	}
	if !later {
		cl.reply(err)
	}
}

// reply answers the request. The connection ends unless the client has attached.
func (cl *client) reply(err error) {
	failure := ""
	if err != nil {
		failure = err.Error()
	}
	_, err = sys.Write(cl.fd, wire.AppendReply(cl.c.m.packetBuf[:0], failure[:min(len(failure), 512)]))
	if err != nil || !cl.attached {
		cl.disconnect()
	}
}

// replyStarted answers a start request with the first process of the container, or with an error.
func (cl *client) replyStarted(err error) {
	failure := ""
	if err != nil {
		failure = err.Error()
	}
	init := &cl.c.m.init
	_, _ = sys.Write(cl.fd, wire.AppendStarted(cl.c.m.packetBuf[:0], init.pid, init.start, failure))
	cl.disconnect()
}

// attach attaches the client to the container's streams. No frame can precede the reply,
// because the monitor reads nothing from the container in between.
func (cl *client) attach(q *wire.Request) {
	if q.Stdin && !cl.c.m.spec.Stdin {
		// The client still gets the output. Its input is discarded.
		q.Stdin = false
	}
	if err := unix.SetsockoptInt(cl.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer); err != nil {
		_ = unix.SetsockoptInt(cl.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	}
	cl.attached = true
	cl.stdin, cl.stdout, cl.stderr = q.Stdin, q.Stdout, q.Stderr
	cl.setInterest()
}

// handleFrame handles one frame. It returns false for a malformed frame, after which the
// connection ends.
func (cl *client) handleFrame(b []byte) bool {
	m := cl.c.m
	switch payload := b[1:]; wire.Frame(b[0]) {
	case wire.FrameStdin:
		if cl.stdin {
			m.stdin.send(payload)
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

// closeStdin ends the input of the client. If the container has StdinOnce, the first client
// with stdin that ends its input closes the container's stdin.
func (cl *client) closeStdin() {
	if cl.stdin && cl.c.m.spec.StdinOnce {
		cl.c.m.stdin.close()
	}
}

// disconnect ends the connection.
func (cl *client) disconnect() {
	if cl.attached {
		cl.closeStdin()
	}
	if cl.blocking {
		cl.c.m.resumeOutput()
	}
	cl.c.remove(cl)
}

// drainAndClose closes the connection after it has read everything that the client has sent.
// The kernel resets a connection that is closed with unread data, and then the client may lose
// output and the exit code that it has not yet read.
func (cl *client) drainAndClose() {
	if cl.fd < 0 {
		return
	}
	_ = unix.Shutdown(cl.fd, unix.SHUT_RD) // the client can send nothing more
	var b [1]byte                          // a read drops the rest of the packet
	for {
		if n, err := sys.Read(cl.fd, b[:]); err != nil || n == 0 {
			break
		}
	}
	sys.CloseFD(&cl.fd)
}

// linger keeps a client that has closed its end, until the container reads the client's input.
// The number of such clients is limited.
func (cl *client) linger() {
	if !cl.stdin || cl.c.countLingering() >= maxLingering {
		cl.disconnect()
		return
	}
	cl.lingering = true
	cl.stdout, cl.stderr = false, false
	if cl.blocking {
		cl.c.m.resumeOutput()
	}
	cl.c.m.poll.Remove(cl.fd) // epoll would report the hang-up again and again
}

// setInterest sets the events to poll for.
func (cl *client) setInterest() {
	var events uint32
	if !cl.attached || !cl.c.inputPaused {
		events |= unix.EPOLLIN
	}
	if cl.blocking {
		events |= unix.EPOLLOUT
	}
	if !cl.lingering {
		cl.c.m.poll.Modify(cl.fd, events)
	} else if events != 0 {
		cl.lingering = false
		_ = cl.c.m.poll.Add(cl.fd, events, cl)
	}
}

// writable reports whether the client can take the output of one read. The kernel reports a
// socket as writable when three quarters of its buffer are free. The system call is ppoll with
// a timeout of 0, because newer architectures do not have poll(2).
func (cl *client) writable() bool {
	fds := [1]unix.PollFd{{Fd: int32(cl.fd), Events: unix.POLLOUT}}
	var zero unix.Timespec
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds)), 1, uintptr(unsafe.Pointer(&zero)), 0, 0, 0)
	return errno != 0 || n > 0
}

// sendAll sends data in frames, and disconnects the client if a frame does not fit its buffer.
func (cl *client) sendAll(kind wire.Frame, data []byte) {
	for len(data) > 0 {
		n := min(len(data), wire.MaxPayload)
		if !cl.send(kind, data[:n]) {
			cl.disconnect()
			return
		}
		data = data[n:]
	}
}

// send writes one frame to the client's socket buffer, and returns false if the frame does not
// fit.
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
