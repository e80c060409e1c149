package monitor

import (
	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/monitor/runtime"
	"github.com/criserver/criserver/conmon/monitor/sys"
	"github.com/criserver/criserver/conmon/wire"
)

// guest is the extra state of a container that runs under a separate kernel, as with gVisor.
// Its processes are not children of the monitor. The streams are handed to the runtime's start
// (see deferredStart), and the output of the runtime's wait is the exit code. The container's first
// process, as seen from the host, is the guest's kernel; when the kernel exits, the container has
// ended.
type guest struct {
	m          *monitor
	waitProc   runtime.Process // the runtime's wait
	waitOutput int             // read end of waitProc's stdout
}

// wait starts the runtime's wait.
func (g *guest) wait() error {
	m := g.m
	r, w, err := newPipe(0)
	if err != nil {
		return err
	}
	args := runtime.Args(&m.spec, "wait", m.spec.ID)
	g.waitProc, err = runtime.Start(args, &m.spec, [3]int{-1, w, -1})
	sys.CloseFD(&w)
	if err != nil {
		sys.CloseFD(&r)
		return err
	}
	g.waitOutput = r
	return m.poll.Add(g.waitProc.PidFD, unix.EPOLLIN, g)
}

// Ready is called when waitProc has exited.
func (g *guest) Ready(uint32) { g.m.init.reap() }

// waitExited reads the exit code from the output of the runtime's wait. If there is none,
// because the guest has died, the exit code is unknown.
func (g *guest) waitExited() {
	g.m.poll.Remove(g.waitProc.PidFD)
	g.waitProc.Close()
	g.waitProc.PID = 0
	n, err := sys.Read(g.waitOutput, g.m.readBuf[:wire.MaxStarted])
	sys.CloseFD(&g.waitOutput)
	code, known := int32(0), false
	if err == nil {
		code, known = wire.DecodeExitStatus(g.m.readBuf[:n])
	}
	g.m.init.setExited(exitStatus(code), known)
}
