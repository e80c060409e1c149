package monitor

import (
	"time"

	"golang.org/x/sys/unix"
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
	return d.m.poll.Add(pidfd, unix.EPOLLIN, d.criu)
}

// Ready is called when CRIU has exited.
func (p *criuProcess) Ready(uint32) {
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
	p.d.m.poll.Remove(p.pidfd)
	_ = unix.Close(p.pidfd)
	p.d.criu = nil
}
