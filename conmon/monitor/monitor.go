package monitor

import (
	"errors"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/monitor/crilog"
	"github.com/criserver/criserver/conmon/monitor/oom"
	"github.com/criserver/criserver/conmon/monitor/runtime"
	"github.com/criserver/criserver/conmon/monitor/sys"
	"github.com/criserver/criserver/conmon/wire"
)

const (
	// slowClientTimeout is how long the container's output stays paused for a client that has
	// the container's stdin and does not read.
	slowClientTimeout = 10 * time.Second
	// drainTimeout is how long the monitor continues to log for processes that outlive the
	// container's first process and still hold its streams.
	drainTimeout = 10 * time.Second
	// idleTime is how long a buffer must be unused before its memory goes back to the kernel.
	idleTime = time.Second
	// reapInterval is the longest time that an orphan stays a zombie.
	reapInterval = 5 * time.Second
)

// monitor is the state of the process. Only one goroutine uses it. It is one block of memory,
// because each new block size costs the Go heap two pages.
type monitor struct {
	spec      wire.Spec
	poll      sys.Poller
	readBuf   sys.Buffer // one read of the container's output
	packetBuf sys.Buffer // one packet from a client
	log       crilog.File
	streams   [2]stream // stdout and stderr; with a terminal, only the first is used
	stdin     stdin
	console   int // master of the terminal, or -1
	control   control
	init      initProcess
	deferred  deferredStart
	guest     guest

	slowClient         *client // the container's output is paused for it, or nil
	slowClientDeadline time.Time
	lastRead           time.Time
	buffersUsed        bool      // since releaseBuffers
	answerUnread       bool      // the daemon has closed the pipe without reading the answer
	exitRecorded       bool      // the exit record is written
	exitDeadline       time.Time // the monitor exits then, even if the streams are still open
}

func newMonitor(spec wire.Spec) *monitor {
	m := &monitor{spec: spec, console: -1}
	m.log = crilog.Closed()
	m.streams = [2]stream{{fd: -1}, {fd: -1}}
	m.stdin = stdin{m: m, fd: -1, tty: spec.Terminal}
	m.control = control{m: m, fd: -1}
	m.init = initProcess{m: m, pidfd: -1, oom: oom.New(&m.poll)}
	m.deferred = deferredStart{m: m, fds: [3]int{-1, -1, -1}, proc: runtime.None()}
	m.guest = guest{m: m, waitProc: runtime.None(), waitOutput: -1}
	return m
}

// run creates the container and monitors it until the container has exited. If run returns an
// error, the container does not exist. A container that is restored has no process until the
// daemon sends a start.
func (m *monitor) run() error {
	if err := m.prepare(); err != nil {
		return err
	}
	if m.spec.RestoreImages == "" {
		if err := m.create(); err != nil {
			m.removeControlSocket()
			return err
		}
	}
	ignoreSignals()
	if err := m.reportStarted(); err != nil {
		m.undo()
		return err
	}
	m.releaseBuffers()
	for !m.done() {
		if !m.poll.Poll() {
			m.waitForEvents()
		}
		m.runTimers()
	}
	if m.answerUnread {
		m.undo()
	}
	m.log.Close()
	return nil
}

// prepare makes everything that can be made without the container, so that its errors need no
// undo.
func (m *monitor) prepare() (err error) {
	if err := unix.Chdir(m.spec.RunDir); err != nil {
		return sys.Wrap("enter run directory", err)
	}
	if err := m.poll.Open(); err != nil {
		return err
	}
	out, err := sys.NewBuffer(crilog.BufferSize)
	if err != nil {
		return err
	}
	if m.readBuf, err = sys.NewBuffer(readBufSize); err != nil {
		return err
	}
	if m.packetBuf, err = sys.NewBuffer(wire.MaxPayload + 4096); err != nil {
		return err
	}
	if err := m.log.Open(m.spec.LogPath, m.spec.LogSizeMax, out); err != nil {
		return err
	}
	return m.control.open()
}

// undo deletes the container, whether create has completed or not.
func (m *monitor) undo() {
	m.removeControlSocket()
	runtime.Delete(&m.spec)
}

// removeControlSocket removes the only file that prepare makes besides the log.
func (m *monitor) removeControlSocket() { _ = unix.Unlink(wire.ControlSocket) }

// reportStarted adds all descriptors to the epoll set and sends the daemon the answer.
func (m *monitor) reportStarted() error {
	if err := errors.Join(m.watchContainer(), m.control.watch()); err != nil {
		return err
	}
	if err := sendStarted(m.init.pid, m.init.start, ""); err != nil {
		return sys.Wrap("send answer to daemon", err)
	}
	return m.poll.Add(wire.StartedFD, 0, (*answerPipe)(m))
}

// watchContainer adds the first process and the streams to the epoll set, if the container has a
// process.
func (m *monitor) watchContainer() error {
	if m.init.pid == 0 {
		return nil
	}
	err := m.init.watch()
	for i := range m.streams {
		err = errors.Join(err, m.streams[i].watch())
	}
	return err
}

// answerPipe is the handler of the pipe on which the answer was sent.
type answerPipe monitor

// Ready is called when the daemon has closed its end of the pipe. If the answer is still in the
// pipe, the daemon has died or has given up. Then the daemon will act as if the container had
// never been created, so the monitor has to delete it.
func (a *answerPipe) Ready(uint32) {
	unread, err := unix.IoctlGetInt(wire.StartedFD, unix.TIOCINQ)
	a.answerUnread = err != nil || unread > 0
	a.poll.Remove(wire.StartedFD)
	_ = unix.Close(wire.StartedFD)
}

// noteRead records a read of n bytes from s. If the container writes without a pause, noteRead
// sleeps until the pipe is fuller, so that the next read gets more at once.
func (m *monitor) noteRead(s *stream, n int) {
	now := time.Now()
	if n < readBufSize/2 && now.Sub(m.lastRead) < burstInterval && !m.init.exited {
		lag := unix.NsecToTimespec(int64(s.size / fillRate))
		_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&lag)), 0, 0)
		now = time.Now()
	}
	m.lastRead = now
	m.noteBufferUse(n)
}

// noteBufferUse records that n bytes of a buffer were used. Up to one page, the memory is not
// worth a wake-up to release it.
func (m *monitor) noteBufferUse(n int) { m.buffersUsed = m.buffersUsed || n > 4096 }

// releaseBuffers gives the memory of the buffers back to the kernel. The buffers are empty
// between two events.
func (m *monitor) releaseBuffers() {
	m.readBuf.Release()
	m.packetBuf.Release()
	m.log.Buffer().Release()
	m.buffersUsed = false
}

// resize sets the size of the container's terminal.
func (m *monitor) resize(width, height uint16) error {
	if m.console < 0 {
		return errors.New("the container has no terminal")
	}
	return unix.IoctlSetWinsize(m.console, unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
}
