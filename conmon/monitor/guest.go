package monitor

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/wire"
)

// guest is what there is of a container that runs under a kernel of its own:
// its processes are none of this one's children. The runtime's start hands its
// streams over, and the runtime's wait tells how it ended. The process in the
// place of the first one is the guest's kernel, with whose end all ends.
type guest struct {
	m      *monitor
	fds    [3]int // the container's ends of its streams, until it is started
	waiter child
	answer int // read end of the waiter's output
}

// errNotGuest is for what only a container in a guest can be asked.
var errNotGuest = errors.New("the container is not in a guest")

// start runs the container's process. A daemon that has died since it asked may
// ask again.
func (g *guest) start() error {
	m := g.m
	switch {
	case !m.spec.Guest:
		return errNotGuest
	case m.init.ended:
		return errors.New("the container has ended")
	case g.waiter.pid > 0:
		return nil
	}
	_ = unix.Unlink(wire.RuntimeLog)
	c, err := spawn(runtimeArgs(&m.spec, "start", m.spec.ID), &m.spec, g.fds)
	g.closeFDs()
	if err != nil {
		return err
	}
	defer c.close()
	status, err := c.wait()
	if err != nil {
		return wrap("wait for runtime", err)
	}
	if !status.Exited() || status.ExitStatus() != 0 {
		return errors.New("runtime start: " + runtimeWords("", howEnded(status), m.log.out))
	}
	return g.wait()
}

// wait starts the runtime's wait.
func (g *guest) wait() error {
	m := g.m
	r, w, err := newPipe(0)
	if err != nil {
		return err
	}
	args := runtimeArgs(&m.spec, "wait", m.spec.ID)
	g.waiter, err = spawn(args, &m.spec, [3]int{-1, w, -1})
	closeFD(&w)
	if err != nil {
		closeFD(&r)
		return err
	}
	g.answer = r
	return m.poll.add(g.waiter.pidfd, unix.EPOLLIN, g)
}

// ready is called when the waiter has ended.
func (g *guest) ready(uint32) { g.m.init.reap() }

// reaped takes the answer of the waiter. One that has none, as the guest has
// gone, leaves the exit code unknown.
func (g *guest) reaped() {
	g.m.poll.drop(g.waiter.pidfd)
	g.waiter.close()
	g.waiter.pid = 0
	n, err := read(g.answer, g.m.in[:wire.MaxStarted])
	closeFD(&g.answer)
	code, known := int32(0), false
	if err == nil {
		code, known = wire.DecodeWaited(g.m.in[:n])
	}
	g.m.init.end(exited(code), known)
}

// abandon ends what was never started, as if it had been killed.
func (g *guest) abandon() error {
	switch {
	case !g.m.spec.Guest:
		return errNotGuest
	case g.waiter.pid > 0:
		return errors.New("the container runs")
	}
	g.m.init.end(exited(128+int32(unix.SIGKILL)), true)
	return nil
}

// exited is the status of a process that has ended by itself.
func exited(code int32) unix.WaitStatus { return unix.WaitStatus(uint32(code&0xff) << 8) }

// howEnded says how a process of the runtime ended.
func howEnded(status unix.WaitStatus) string {
	if status.Signaled() {
		return status.Signal().String()
	}
	return "exit status " + strconv.Itoa(status.ExitStatus())
}

func (g *guest) closeFDs() {
	for i := range g.fds {
		closeFD(&g.fds[i])
	}
}
