package monitor

import (
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/wire"
)

// guest is the extra state of a container that runs under a separate kernel, as with gVisor.
// Its processes are not children of the monitor. The streams are handed to the runtime's start,
// and the output of the runtime's wait is the exit code. The container's first process, as
// seen from the host, is the guest's kernel; when the kernel exits, the container has ended.
type guest struct {
	m             *monitor
	fds           [3]int // the container's ends of its streams, until it is started
	startProc     child  // the runtime's start, while it runs
	startDeadline time.Time
	startClient   *client // waits for startProc; nil if it has disconnected
	waitProc      child   // the runtime's wait
	waitOutput    int     // read end of waitProc's stdout
}

// startTimeout limits the runtime's start. The daemon waits at least as long.
const startTimeout = 2 * time.Minute

// errNotGuest is the error of requests that only a container in a guest supports.
var errNotGuest = errors.New("the container is not in a guest")

// start runs the container's process. A daemon that was restarted may send the request
// again. The runtime's start can take minutes, so start does not wait for it: if later is
// true, the client gets the reply when the runtime has ended.
func (g *guest) start(cl *client) (later bool, err error) {
	m := g.m
	switch {
	case !m.spec.Guest:
		return false, errNotGuest
	case m.init.exited:
		return false, errors.New("the container has ended")
	case g.waitProc.pid > 0:
		return false, nil
	case g.startProc.pid == 0:
		if err := g.spawnStart(); err != nil {
			return false, err
		}
	}
	if g.startClient != nil {
		g.startClient.reply(errors.New("another start request replaced this one"))
	}
	g.startClient = cl
	return true, nil
}

// spawnStart starts the runtime's start.
func (g *guest) spawnStart() (err error) {
	_ = unix.Unlink(wire.RuntimeLog)
	if g.startProc, err = spawn(runtimeArgs(&g.m.spec, "start", g.m.spec.ID), &g.m.spec, g.fds); err != nil {
		return err
	}
	g.startDeadline = time.Now().Add(startTimeout)
	return g.m.poll.add(g.startProc.pidfd, unix.EPOLLIN, g)
}

// startExited handles the exit of the runtime's start: it starts the runtime's wait and answers
// the client.
func (g *guest) startExited(status unix.WaitStatus) {
	g.m.poll.remove(g.startProc.pidfd)
	g.startProc.close()
	g.startProc = child{pidfd: -1}
	var err error
	switch {
	case g.m.init.exited:
		err = errors.New("the container has ended")
	case !status.Exited() || status.ExitStatus() != 0:
		err = errors.New("runtime start: " + runtimeFailure("", describeStatus(status), g.m.log.out))
	default:
		g.closeFDs()
		err = g.wait()
	}
	if cl := g.startClient; cl != nil {
		g.startClient = nil
		cl.reply(err)
	}
}

// killStart kills the runtime's start, if it runs.
func (g *guest) killStart() {
	if g.startProc.pid > 0 {
		_ = unix.Kill(g.startProc.pid, unix.SIGKILL) // a child not yet waited for keeps its pid
	}
}

// checkStartTimeout kills a start that takes too long.
func (g *guest) checkStartTimeout() {
	if now := time.Now(); g.startProc.pid > 0 && !now.Before(g.startDeadline) {
		g.killStart()
		g.startDeadline = now.Add(startTimeout) // a killed process may take a while to exit
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
	g.waitProc, err = spawn(args, &m.spec, [3]int{-1, w, -1})
	closeFD(&w)
	if err != nil {
		closeFD(&r)
		return err
	}
	g.waitOutput = r
	return m.poll.add(g.waitProc.pidfd, unix.EPOLLIN, g)
}

// ready is called when startProc or waitProc has exited.
func (g *guest) ready(uint32) { g.m.init.reap() }

// waitExited reads the exit code from the output of the runtime's wait. If there is none,
// because the guest has died, the exit code is unknown.
func (g *guest) waitExited() {
	g.m.poll.remove(g.waitProc.pidfd)
	g.waitProc.close()
	g.waitProc.pid = 0
	n, err := read(g.waitOutput, g.m.readBuf[:wire.MaxStarted])
	closeFD(&g.waitOutput)
	code, known := int32(0), false
	if err == nil {
		code, known = wire.DecodeExitStatus(g.m.readBuf[:n])
	}
	g.m.init.setExited(exitStatus(code), known)
}

// abandon ends a container that was never started, with the exit code of a killed process.
func (g *guest) abandon() error {
	switch {
	case !g.m.spec.Guest:
		return errNotGuest
	case g.waitProc.pid > 0:
		return errors.New("the container is running")
	}
	g.killStart()
	if cl := g.startClient; cl != nil {
		g.startClient = nil
		cl.reply(errors.New("the container was abandoned before it was started"))
	}
	g.m.init.setExited(exitStatus(128+int32(unix.SIGKILL)), true)
	return nil
}

// exitStatus returns the wait status of a process that has exited with code.
func exitStatus(code int32) unix.WaitStatus { return unix.WaitStatus(uint32(code&0xff) << 8) }

// describeStatus describes a wait status of the runtime in an error message.
func describeStatus(status unix.WaitStatus) string {
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
