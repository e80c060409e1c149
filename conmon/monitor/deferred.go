package monitor

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/monitor/runtime"
	"github.com/criserver/criserver/conmon/monitor/sys"
	"github.com/criserver/criserver/conmon/wire"
)

// deferredStart starts a container on request of the daemon: a container in a guest with the
// runtime's start, and a container from a checkpoint with the runtime's restore. Both commands get
// the container's streams, which only the monitor has. Both can take minutes, so the monitor serves
// other requests while they run.
type deferredStart struct {
	m        *monitor
	fds      [3]int          // the streams of a container in a guest, until it is started
	restore  *creation       // the streams of a container while it is restored
	proc     runtime.Process // the runtime's start or restore, while it runs
	deadline time.Time       // of proc
	client   *client         // waits for proc; nil if it has disconnected
	started  bool
	criu     *criuProcess // while a container is restored; nil before CRIU runs
}

// errNotDeferred is the error of requests that only a container with a deferred start supports.
var errNotDeferred = errors.New("the start of the container is not deferred")

// start runs the container's process. A daemon that was restarted may send the request again.
// start does not wait for the runtime: if later is true, the client gets the reply when the
// runtime has exited.
func (d *deferredStart) start(cl *client) (later bool, err error) {
	m := d.m
	switch {
	case !m.spec.StartDeferred():
		return false, errNotDeferred
	case m.init.exited:
		return false, errors.New("the container has ended")
	case d.started:
		cl.replyStarted(nil)
		return true, nil
	case d.proc.PID == 0:
		if err := d.spawn(); err != nil {
			return false, err
		}
	}
	if d.client != nil {
		d.client.reply(errors.New("another start request replaced this one"))
	}
	d.client = cl
	return true, nil
}

// spawn runs the runtime's start or restore.
func (d *deferredStart) spawn() (err error) {
	_ = unix.Unlink(wire.RuntimeLog)
	d.deadline = time.Now().Add(d.timeout())
	if d.m.spec.RestoreImages != "" {
		err = d.spawnRestore()
	} else {
		d.proc, err = runtime.Start(runtime.Args(&d.m.spec, "start", d.m.spec.ID), &d.m.spec, d.fds)
	}
	if err != nil {
		return err
	}
	return d.m.poll.Add(d.proc.PidFD, unix.EPOLLIN, d)
}

func (d *deferredStart) timeout() time.Duration {
	if d.m.spec.RestoreImages != "" {
		return wire.RestoreTimeout
	}
	return wire.StartTimeout
}

// Ready is called when the runtime has exited.
func (d *deferredStart) Ready(uint32) { d.m.init.reap() }

// reapable returns the child that may be reaped, for wait4. Until the exit of the runtime's restore
// is handled, the monitor does not know the pid of the container's first process, whose exit status
// would be lost if any child was reaped.
func (d *deferredStart) reapable() (pid int) {
	if d.restore != nil && d.proc.PID > 0 {
		return d.proc.PID
	}
	return -1
}

// exited handles the exit of the runtime, and answers the client.
func (d *deferredStart) exited(status unix.WaitStatus) {
	d.m.poll.Remove(d.proc.PidFD)
	d.proc.Close()
	d.proc = runtime.None()
	err := d.complete(status)
	d.started = err == nil
	if cl := d.client; cl != nil {
		d.client = nil
		cl.replyStarted(err)
	}
}

// complete completes the start after the runtime has exited.
func (d *deferredStart) complete(status unix.WaitStatus) error {
	m := d.m
	switch {
	case d.restore != nil:
		return d.completeRestore(status)
	case m.init.exited:
		return errors.New("the container has ended")
	case !status.Exited() || status.ExitStatus() != 0:
		return errors.New("runtime start: " + runtime.Failure("", runtime.DescribeStatus(status), m.log.Buffer()))
	}
	d.closeFDs()
	return m.guest.wait()
}

// kill kills the runtime, if it runs.
func (d *deferredStart) kill() {
	if d.proc.PID > 0 {
		_ = unix.Kill(d.proc.PID, unix.SIGKILL) // a child not yet waited for keeps its pid
	}
}

// checkTimeout kills a start that takes too long.
func (d *deferredStart) checkTimeout() {
	if now := time.Now(); d.proc.PID > 0 && !now.Before(d.deadline) {
		d.kill()
		d.deadline = now.Add(d.timeout()) // a killed process may take a while to exit
	}
}

// abandon ends a container that the daemon has not seen running, with the exit code of a killed
// process. If the start has just succeeded, abandon kills the first process of a restored container;
// for a container in a guest it returns an error, because the runtime must kill the process.
func (d *deferredStart) abandon() error {
	m := d.m
	switch {
	case !m.spec.StartDeferred():
		return errNotDeferred
	case m.init.exited:
		return nil
	case d.started && m.spec.Guest:
		return errors.New("the container is running")
	case d.started:
		return sys.WrapIf("kill", unix.Kill(m.init.pid, unix.SIGKILL)) // a child not yet waited for keeps its pid
	}
	d.kill()
	if d.restore != nil {
		d.abandonRestore()
	}
	if cl := d.client; cl != nil {
		d.client = nil
		cl.reply(errors.New("the container was abandoned before it was started"))
	}
	m.init.setExited(exitStatus(128+int32(unix.SIGKILL)), true)
	return nil
}

// exitStatus returns the wait status of a process that has exited with code.
func exitStatus(code int32) unix.WaitStatus { return unix.WaitStatus(uint32(code&0xff) << 8) }

func (d *deferredStart) closeFDs() {
	for i := range d.fds {
		sys.CloseFD(&d.fds[i])
	}
}
