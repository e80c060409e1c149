package monitor

import (
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/wire"
)

// criuGrace is the time after which the monitor kills a runtime that does not exit although CRIU has exited. If CRIU is
// killed, its children keep the connection to the runtime open, and the runtime waits for an answer.
const criuGrace = 10 * time.Second

// criuProcess is the process of CRIU during a restore.
type criuProcess struct {
	d     *deferredStart
	pidfd int
}

// watchCRIU watches the process at the other end of a connection, which will execute CRIU.
func (d *deferredStart) watchCRIU(fd int) error {
	if d.restore == nil || d.criu != nil {
		return errUnknownOp
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return err
	}
	pidfd, err := unix.PidfdOpen(int(cred.Pid), 0)
	if err != nil {
		return err
	}
	d.criu = &criuProcess{d, pidfd}
	return d.m.poll.add(pidfd, unix.EPOLLIN, d.criu)
}

// ready is called when CRIU has exited.
func (p *criuProcess) ready(uint32) {
	if deadline := time.Now().Add(criuGrace); deadline.Before(p.d.deadline) {
		p.d.deadline = deadline
	}
	p.close()
}

// close ends the watch. p can be nil.
func (p *criuProcess) close() {
	if p == nil || p.d.criu == nil {
		return
	}
	p.d.m.poll.remove(p.pidfd)
	_ = unix.Close(p.pidfd)
	p.d.criu = nil
}

// announceCRIU sends the monitor a request that names this process.
func announceCRIU(runDir string) error {
	dir, err := unix.Open(runDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// The path of the directory can be too long for a socket address.
	name := "/proc/self/fd/" + strconv.Itoa(dir) + "/" + wire.ControlSocket
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		return err
	}
	if _, err := write(fd, []byte(`{"op":"`+wire.OpCRIU+`"}`+"\n")); err != nil {
		return err
	}
	var b [wire.MaxRequest]byte
	n, err := read(fd, b[:])
	if err == nil && string(b[:n]) != string(wire.AppendReply(nil, "")) {
		err = errUnknownOp
	}
	return err
}
