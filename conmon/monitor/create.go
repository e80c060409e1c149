package monitor

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/wire"
)

// errGivenUp says that the daemon went, or lost its interest, while the OCI
// runtime was at work.
var errGivenUp = errors.New("nobody waits for the container")

// creation is what exists only while the OCI runtime's create runs.
type creation struct {
	m        *monitor
	child    child
	refused  bool // it ended in failure by itself
	console  *console
	outputs  [2]int // what the runtime's stdout and stderr say; they become the streams
	silent   [2]bool
	words    tail   // the end of what it said
	childFDs [3]int // its stdio, -1 for /dev/null
}

// create has the OCI runtime create the container. On failure nothing of the
// container is left.
func (m *monitor) create() error {
	c := &creation{m: m, child: child{pidfd: -1}, outputs: [2]int{-1, -1}, childFDs: [3]int{-1, -1, -1}}
	defer c.close()
	err := c.open()
	if err == nil {
		err = c.start()
	}
	if err != nil {
		return err
	}
	if err = c.wait(); err == nil {
		err = c.adopt()
	}
	switch {
	case err == nil:
	case c.refused:
		// The runtime has cleaned up after itself. To delete would be wrong
		// where it says that another container has the id.
		killOrphans()
	default:
		c.child.kill()
		m.undo()
	}
	return err
}

// open makes the pipes or the console socket.
func (c *creation) open() (err error) {
	spec := &c.m.spec
	if spec.Terminal {
		// Both outputs of the runtime itself, which the container does not get.
		c.outputs[1], c.childFDs[2], err = newPipe(0)
		c.childFDs[1] = c.childFDs[2]
		if err == nil {
			c.console, err = listenConsole()
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
			err = swapNonblock(c.m.stdin.fd, c.childFDs[0])
		}
	}
	if err != nil {
		return err
	}
	return c.own()
}

// own gives the container's ends of the pipes to its root.
func (c *creation) own() error {
	spec := &c.m.spec
	if spec.StdioUID == 0 && spec.StdioGID == 0 {
		return nil
	}
	for _, fd := range c.childFDs {
		if fd < 0 {
			continue
		}
		if err := unix.Fchown(fd, int(spec.StdioUID), int(spec.StdioGID)); err != nil {
			return wrap("give pipe to the container's root", err)
		}
	}
	return nil
}

// newPipe makes a pipe whose read end does not block, of that size if the
// kernel allows it.
func newPipe(size int) (r, w int, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return -1, -1, wrap("make pipe", err)
	}
	for ; size > 64<<10; size /= 2 {
		if _, err := unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, size); err == nil {
			break
		}
	}
	return fds[0], fds[1], wrapNil("make pipe", unix.SetNonblock(fds[0], true))
}

// swapNonblock makes one descriptor non-blocking and the other blocking.
func swapNonblock(not, block int) error {
	return wrapNil("make pipe", errors.Join(unix.SetNonblock(not, true), unix.SetNonblock(block, false)))
}

func (c *creation) start() (err error) {
	spec := &c.m.spec
	_ = unix.Unlink(wire.RuntimeLog)
	_ = unix.Unlink(wire.PIDFile)
	args := runtimeArgs(spec, "create", "--bundle", spec.Bundle, "--pid-file", spec.RunDir+"/"+wire.PIDFile)
	if c.console != nil {
		args = append(args, "--console-socket", consolePath(spec.RunDir))
	}
	args = append(args, spec.CreateArgs...)
	args = append(args, spec.ID)
	c.child, err = spawn(args, spec, c.childFDs)
	if spec.Guest && !spec.Terminal {
		// The runtime wants them again, when it starts the container.
		c.m.guest.fds, c.childFDs = c.childFDs, [3]int{-1, -1, -1}
		return err
	}
	// From here on only the runtime holds its ends, so theirs is the hang-up.
	c.closeChildFDs()
	return err
}

// wait lets the runtime do its work.
func (c *creation) wait() error {
	for {
		fds := [...]unix.PollFd{
			{Fd: int32(c.child.pidfd), Events: unix.POLLIN},
			{Fd: wire.StartedFD}, // an error when the daemon's end is closed
			{Fd: c.listenable(0), Events: unix.POLLIN},
			{Fd: c.listenable(1), Events: unix.POLLIN},
			{Fd: int32(c.console.waiting()), Events: unix.POLLIN},
		}
		if _, err := unix.Poll(fds[:], -1); err != nil && err != unix.EINTR {
			return wrap("poll", err)
		}
		if fds[1].Revents != 0 {
			return errGivenUp
		}
		c.listen()
		if fds[4].Revents != 0 {
			if err := c.console.step(c.m.in); err != nil {
				return err
			}
		}
		if fds[0].Revents != 0 {
			return c.result()
		}
	}
}

// listen reads what the runtime says on its outputs, so that it can go on.
func (c *creation) listen() {
	for i, fd := range c.outputs {
		if fd < 0 || c.silent[i] {
			continue
		}
		n, err := read(fd, c.m.in)
		switch {
		case err == nil && n > 0:
			c.words.add(c.m.in[:n])
		case err != unix.EAGAIN:
			c.silent[i] = true
		}
	}
}

func (c *creation) listenable(i int) int32 {
	if c.silent[i] {
		return -1
	}
	return int32(c.outputs[i])
}

// result is how the runtime ended.
func (c *creation) result() error {
	status, err := c.child.wait()
	if err != nil {
		return wrap("wait for runtime", err)
	}
	c.listen()
	if status.Exited() && status.ExitStatus() == 0 {
		return nil
	}
	c.refused = status.Exited()
	return errors.New("runtime create: " + runtimeWords(c.words.text(), howEnded(status), c.m.log.out))
}

// adopt takes over what the runtime made.
func (c *creation) adopt() error {
	m := c.m
	if err := m.init.adopt(m.spec.RunDir + "/" + wire.PIDFile); err != nil {
		return err
	}
	if c.console == nil {
		m.streams[0].set(m, c.outputs[0], stdout, wire.FrameStdout)
		m.streams[1].set(m, c.outputs[1], stderr, wire.FrameStderr)
		c.outputs = [2]int{-1, -1}
		return nil
	}
	for c.console.master < 0 { // what the runtime sent before its end is there
		before := c.console.conn
		if err := c.console.step(c.m.in); err != nil {
			return err
		}
		if c.console.master < 0 && c.console.conn == before {
			return errors.New("receive terminal: the runtime sent none")
		}
	}
	m.console = c.console.master
	m.streams[0].set(m, m.console, stdout, wire.FrameStdout)
	in, err := unix.FcntlInt(uintptr(m.console), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return wrap("duplicate terminal", err)
	}
	m.stdin.fd = in
	return nil
}

func (c *creation) closeChildFDs() {
	if c.childFDs[1] == c.childFDs[2] {
		c.childFDs[1] = -1
	}
	for i := range c.childFDs {
		closeFD(&c.childFDs[i])
	}
}

func (c *creation) close() {
	c.closeChildFDs()
	c.child.close()
	c.console.close()
	for i := range c.outputs {
		closeFD(&c.outputs[i])
	}
}
