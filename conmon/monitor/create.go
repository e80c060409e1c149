package monitor

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/monitor/crilog"
	"github.com/criserver/criserver/conmon/monitor/runtime"
	"github.com/criserver/criserver/conmon/monitor/sys"
	"github.com/criserver/criserver/conmon/wire"
)

// errDaemonGone reports that the daemon has closed its pipe while the OCI runtime was running.
var errDaemonGone = errors.New("the daemon does not wait for the container any more")

// creation is the state that exists only while the OCI runtime's create or restore runs.
type creation struct {
	m             *monitor
	child         runtime.Process
	runtimeFailed bool // the runtime has exited with an error, and was not killed
	console       *runtime.Console
	outputs       [2]int // read ends of the runtime's stdout and stderr, which become the streams
	outputClosed  [2]bool
	runtimeOutput runtime.Tail // the end of what the runtime has written
	childFDs      [3]int       // stdio of the runtime, -1 for /dev/null
}

func newCreation(m *monitor) *creation {
	return &creation{m: m, child: runtime.None(), outputs: [2]int{-1, -1}, childFDs: [3]int{-1, -1, -1}}
}

// create runs the OCI runtime's create. If create fails, nothing of the container exists any
// more.
func (m *monitor) create() error {
	c := newCreation(m)
	defer c.close()
	err := c.open()
	if err == nil {
		err = c.start()
	}
	if err != nil {
		return err
	}
	if err = c.wait(); err == nil {
		err = c.takeOver()
	}
	switch {
	case err == nil:
	case c.runtimeFailed:
		// The runtime has cleaned up after itself. A delete would be wrong: if the runtime has
		// failed because the id is in use, it would delete another container.
		runtime.KillOrphans()
	default:
		c.child.Kill()
		m.undo()
	}
	return err
}

// open makes the pipes or the console socket.
func (c *creation) open() (err error) {
	spec := &c.m.spec
	if spec.Terminal {
		// The pipe is for both outputs of the runtime. The container has the terminal instead.
		c.outputs[1], c.childFDs[2], err = newPipe(0)
		c.childFDs[1] = c.childFDs[2]
		if err == nil {
			c.console, err = runtime.ListenConsole()
		}
		return err
	}
	for i := range c.outputs {
		if c.outputs[i], c.childFDs[i+1], err = newPipe(pipeSize); err != nil {
			return err
		}
	}
	if spec.Stdin {
		c.childFDs[0], c.m.stdin.fd, err = newPipe(0)
		if err == nil {
			err = setBlocking(c.m.stdin.fd, c.childFDs[0])
		}
	}
	if err != nil {
		return err
	}
	return c.chownPipes()
}

// start starts the OCI runtime's create.
func (c *creation) start() (err error) {
	spec := &c.m.spec
	_ = unix.Unlink(wire.RuntimeLog)
	_ = unix.Unlink(wire.PIDFile)
	args := runtime.Args(spec, "create", "--bundle", spec.Bundle, "--pid-file", spec.RunDir+"/"+wire.PIDFile)
	if c.console != nil {
		args = append(args, "--console-socket", runtime.ConsolePath(spec.RunDir))
	}
	args = append(args, spec.CreateArgs...)
	args = append(args, spec.ID)
	c.child, err = runtime.Start(args, spec, c.childFDs)
	if spec.Guest && !spec.Terminal {
		// The runtime needs the descriptors again when it starts the container.
		c.m.deferred.fds, c.childFDs = c.childFDs, [3]int{-1, -1, -1}
		return err
	}
	// Only the runtime may hold its ends, so that their closing shows as a hang-up here.
	c.closeChildFDs()
	return err
}

// wait reads the output of the runtime and receives the terminal until the runtime has exited.
func (c *creation) wait() error {
	for {
		fds := [...]unix.PollFd{
			{Fd: int32(c.child.PidFD), Events: unix.POLLIN},
			{Fd: wire.StartedFD}, // POLLERR when the daemon has closed its end
			{Fd: c.pollFD(0), Events: unix.POLLIN},
			{Fd: c.pollFD(1), Events: unix.POLLIN},
			{Fd: int32(c.console.Waiting()), Events: unix.POLLIN},
		}
		if _, err := unix.Poll(fds[:], -1); err != nil && err != unix.EINTR {
			return sys.Wrap("poll", err)
		}
		if fds[1].Revents != 0 {
			return errDaemonGone
		}
		c.readOutputs()
		if fds[4].Revents != 0 {
			if err := c.console.Step(c.m.readBuf); err != nil {
				return err
			}
		}
		if fds[0].Revents != 0 {
			return c.runtimeResult()
		}
	}
}

// readOutputs reads the runtime's outputs, so that the runtime does not block on a full pipe.
func (c *creation) readOutputs() {
	for i, fd := range c.outputs {
		if fd < 0 || c.outputClosed[i] {
			continue
		}
		n, err := sys.Read(fd, c.m.readBuf)
		switch {
		case err == nil && n > 0:
			c.runtimeOutput.Add(c.m.readBuf[:n])
		case err != unix.EAGAIN:
			c.outputClosed[i] = true
		}
	}
}

// pollFD returns the descriptor of an output, or -1 if that output has ended.
func (c *creation) pollFD(i int) int32 {
	if c.outputClosed[i] {
		return -1
	}
	return int32(c.outputs[i])
}

// runtimeResult returns nil if the runtime has exited with 0, and otherwise an error with the
// runtime's message.
func (c *creation) runtimeResult() error {
	status, err := c.child.Wait()
	if err != nil {
		return sys.Wrap("wait for runtime", err)
	}
	c.readOutputs()
	if status.Exited() && status.ExitStatus() == 0 {
		return nil
	}
	c.runtimeFailed = status.Exited()
	return errors.New("runtime create: " + runtime.Failure(c.runtimeOutput.Text(), runtime.DescribeStatus(status), c.m.log.Buffer()))
}

// takeOver identifies the container's first process, and makes the pipes or the terminal the
// container's streams.
func (c *creation) takeOver() error {
	m := c.m
	if err := m.init.identify(m.spec.RunDir + "/" + wire.PIDFile); err != nil {
		return err
	}
	if c.console == nil {
		m.streams[0].init(m, c.outputs[0], crilog.Stdout, wire.FrameStdout)
		m.streams[1].init(m, c.outputs[1], crilog.Stderr, wire.FrameStderr)
		c.outputs = [2]int{-1, -1}
		return nil
	}
	if err := c.console.Finish(c.m.readBuf); err != nil {
		return err
	}
	m.console = c.console.Master
	m.streams[0].init(m, m.console, crilog.Stdout, wire.FrameStdout)
	in, err := unix.FcntlInt(uintptr(m.console), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return sys.Wrap("duplicate terminal", err)
	}
	m.stdin.fd = in
	return nil
}

func (c *creation) closeChildFDs() {
	if c.childFDs[1] == c.childFDs[2] {
		c.childFDs[1] = -1
	}
	for i := range c.childFDs {
		sys.CloseFD(&c.childFDs[i])
	}
}

func (c *creation) close() {
	c.closeChildFDs()
	c.child.Close()
	c.console.Close()
	for i := range c.outputs {
		sys.CloseFD(&c.outputs[i])
	}
}
