// Package rtnl speaks the little of rtnetlink(7) that attaching a pod to a
// bridge takes: links, addresses and routes. Each call is one message and its
// acknowledgement.
package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Conn is a netlink socket. It stays in the network namespace in which its
// thread was when it was opened. It is for one goroutine at a time.
type Conn struct {
	fd  int
	seq uint32
	buf []byte
}

// Open opens a socket in the calling thread's network namespace.
func Open() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	// The kernel's own words beside the error number; old kernels have none.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	// Lists of one interface instead of all; kernels before 4.20 give all.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, errors.Join(fmt.Errorf("bind netlink socket: %w", err), unix.Close(fd))
	}
	return &Conn{fd: fd, buf: make([]byte, 32<<10)}, nil
}

// Close closes the socket.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// request is a message under construction: a header, a fixed part, attributes.
type request struct{ b []byte }

var order = binary.NativeEndian

// newRequest begins a message whose fixed part is the bytes of a C struct.
func newRequest[T any](kind, flags uint16, fixed *T) *request {
	r := &request{b: make([]byte, unix.SizeofNlMsghdr, 256)}
	order.PutUint16(r.b[4:], kind)
	order.PutUint16(r.b[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	r.b = append(r.b, unsafe.Slice((*byte)(unsafe.Pointer(fixed)), unsafe.Sizeof(*fixed))...)
	r.pad()
	return r
}

func (r *request) pad() {
	for len(r.b)%unix.NLMSG_ALIGNTO != 0 {
		r.b = append(r.b, 0)
	}
}

func (r *request) attr(kind uint16, data []byte) {
	r.b = order.AppendUint16(r.b, uint16(unix.SizeofRtAttr+len(data)))
	r.b = order.AppendUint16(r.b, kind)
	r.b = append(r.b, data...)
	r.pad()
}

func (r *request) attrString(kind uint16, s string) { r.attr(kind, append([]byte(s), 0)) }

func (r *request) attr32(kind uint16, v int) {
	r.attr(kind, order.AppendUint32(nil, uint32(v)))
}

// nest puts the attributes that fill adds into one attribute.
func (r *request) nest(kind uint16, fill func()) {
	start := len(r.b)
	r.attr(kind, nil)
	fill()
	order.PutUint16(r.b[start:], uint16(len(r.b)-start))
}

// raw adds bytes as they are.
func (r *request) raw(b []byte) {
	r.b = append(r.b, b...)
	r.pad()
}

// do sends a request and returns the payload of the last message that came
// before its acknowledgement, if any.
func (c *Conn) do(r *request) (answer []byte, err error) {
	err = c.exchange(r, func(body []byte) { answer = append([]byte(nil), body...) })
	return answer, err
}

// exchange sends a request and calls fn with the payload of each message of the
// answer, which is valid during the call, until the acknowledgement of the request or
// the end of the list.
func (c *Conn) exchange(r *request, fn func(body []byte)) error {
	c.seq++
	order.PutUint32(r.b[0:], uint32(len(r.b)))
	order.PutUint32(r.b[8:], c.seq)
	if err := unix.Sendto(c.fd, r.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("netlink send", err)
	}
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("netlink receive", err)
		}
		done, err := c.read(c.buf[:n], fn)
		if done || err != nil {
			return err
		}
	}
}

// read goes through a datagram until the end of the answer to the last request.
func (c *Conn) read(b []byte, fn func(body []byte)) (done bool, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(order.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return false, errors.New("netlink: a message is cut off")
		}
		body := b[unix.SizeofNlMsghdr:size]
		if order.Uint32(b[8:]) == c.seq {
			switch order.Uint16(b[4:]) {
			case unix.NLMSG_ERROR:
				return true, ackError(body, order.Uint16(b[6:]))
			case unix.NLMSG_DONE:
				return true, dumpError(body)
			}
			fn(body)
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return false, nil
}

// dumpError reads the error number at the end of a list, which kernels give as 0 if
// the list is complete.
func dumpError(b []byte) error {
	if len(b) >= 4 {
		if number := int32(order.Uint32(b)); number < 0 {
			return unix.Errno(-number)
		}
	}
	return nil
}

// ackError reads struct nlmsgerr and the words after it.
func ackError(b []byte, flags uint16) error {
	if len(b) < 4+unix.SizeofNlMsghdr {
		return errors.New("netlink: an acknowledgement is cut off")
	}
	number := int32(order.Uint32(b))
	if number == 0 {
		return nil
	}
	err := error(unix.Errno(-number))
	if flags&unix.NLM_F_ACK_TLVS == 0 {
		return err
	}
	for kind, data := range attrs(b[4+unix.SizeofNlMsghdr:]) {
		if kind == unix.NLMSGERR_ATTR_MSG && len(data) > 1 {
			return fmt.Errorf("%w (%s)", err, data[:len(data)-1])
		}
	}
	return err
}

// attrs goes through attributes, without their flag bits.
func attrs(b []byte) func(yield func(uint16, []byte) bool) {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			size := int(order.Uint16(b))
			if size < unix.SizeofRtAttr || size > len(b) {
				return
			}
			if !yield(order.Uint16(b[2:])&0x3fff, b[unix.SizeofRtAttr:size]) {
				return
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}
