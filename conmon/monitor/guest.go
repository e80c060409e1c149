package monitor

import (
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/wire"
)

// guest is what there is of a container that runs under a kernel of its own:
// its processes are none of this one's children. The runtime's start hands its
// streams over, and the runtime's wait tells how it ended. The process in the
// place of the first one is the guest's kernel, with whose end all ends.
type guest struct {
	m       *monitor
	fds     [3]int // the container's ends of its streams, until it is started
	starter child  // the runtime's start, while it runs
	startBy time.Time
	asker   *client // waits for the starter; nil when it has left
	waiter  child
	answer  int // read end of the waiter's output
}

// startTimeout bounds the runtime's start. The daemon gives up no later.
const startTimeout = 2 * time.Minute

// errNotGuest is for what only a container in a guest can be asked.
var errNotGuest = errors.New("the container is not in a guest")

// start runs the container's process. A daemon that was restarted may send the request
// again. The runtime's start can take minutes, so start does not wait for it: if later is
// true, the client gets the reply when the runtime has ended.
func (g *guest) start(cl *client) (later bool, err error) {
	m := g.m
	switch {
	case !m.spec.Guest:
		return false, errNotGuest
	case m.init.ended:
		return false, errors.New("the container has ended")
	case g.waiter.pid > 0:
		return false, nil
	case g.starter.pid == 0:
		if err := g.spawnStart(); err != nil {
			return false, err
		}
	}
	if g.asker != nil {
		g.asker.reply(errors.New("the start was asked for again"))
	}
	g.asker = cl
	return true, nil
}

func (g *guest) spawnStart() (err error) {
	_ = unix.Unlink(wire.RuntimeLog)
	if g.starter, err = spawn(runtimeArgs(&g.m.spec, "start", g.m.spec.ID), &g.m.spec, g.fds); err != nil {
		return err
	}
	g.startBy = time.Now().Add(startTimeout)
	return g.m.poll.add(g.starter.pidfd, unix.EPOLLIN, g)
}

// started takes the end of the runtime's start.
func (g *guest) started(status unix.WaitStatus) {
	g.m.poll.drop(g.starter.pidfd)
	g.starter.close()
	g.starter = child{pidfd: -1}
	var err error
	switch {
	case g.m.init.ended:
		err = errors.New("the container has ended")
	case !status.Exited() || status.ExitStatus() != 0:
		err = errors.New("runtime start: " + runtimeWords("", howEnded(status), g.m.log.out))
	default:
		g.closeFDs()
		err = g.wait()
	}
	if cl := g.asker; cl != nil {
		g.asker = nil
		cl.reply(err)
	}
}

// stopStart kills the runtime's start, if it runs.
func (g *guest) stopStart() {
	if g.starter.pid > 0 {
		_ = unix.Kill(g.starter.pid, unix.SIGKILL) // a child not yet waited for keeps its pid
	}
}

// attend ends a start of the runtime that takes too long.
func (g *guest) attend() {
	if now := time.Now(); g.starter.pid > 0 && !now.Before(g.startBy) {
		g.stopStart()
		g.startBy = now.Add(startTimeout) // a process may take its time to die
	}
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

// ready is called when the starter or the waiter has ended.
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
	g.stopStart()
	if cl := g.asker; cl != nil {
		g.asker = nil
		cl.reply(errors.New("the container was ended before it was started"))
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
