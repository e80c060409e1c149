package monitor

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/monitor/sys"
)

// chownPipes makes the root user of the container the owner of the container's ends of the
// pipes.
func (c *creation) chownPipes() error {
	spec := &c.m.spec
	if spec.StdioUID == 0 && spec.StdioGID == 0 {
		return nil
	}
	for _, fd := range c.childFDs {
		if fd < 0 {
			continue
		}
		if err := unix.Fchown(fd, int(spec.StdioUID), int(spec.StdioGID)); err != nil {
			return sys.Wrap("chown pipe", err)
		}
	}
	return nil
}

// newPipe makes a pipe with a non-blocking read end and the given capacity, or less if the
// kernel does not allow it.
func newPipe(size int) (r, w int, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return -1, -1, sys.Wrap("make pipe", err)
	}
	for ; size > 64<<10; size /= 2 {
		if _, err := unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, size); err == nil {
			break
		}
	}
	return fds[0], fds[1], sys.WrapIf("make pipe", unix.SetNonblock(fds[0], true))
}

// setBlocking makes the descriptor block blocking and the descriptor nonblock non-blocking.
func setBlocking(nonblock, block int) error {
	return sys.WrapIf("make pipe", errors.Join(unix.SetNonblock(nonblock, true), unix.SetNonblock(block, false)))
}
