package monitor

import (
	"errors"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/wire"
)

const (
	// patience is how long the container waits for a client that has its
	// stdin and does not read what it writes.
	patience = 10 * time.Second
	// aftermath is how long the log is kept for processes that outlive the
	// container's first one and still hold its streams.
	aftermath = 10 * time.Second
	// quiet is how long nothing has to happen until buffers are given back.
	quiet = time.Second
	// orphanPause is how long an orphan may stay a zombie.
	orphanPause = 5 * time.Second
)

// monitor is all that the process knows. One goroutine uses it. It is one block
// of memory, as every size of block that is new to the Go heap costs two pages.
type monitor struct {
	spec    wire.Spec
	poll    poller
	in      buffer // what a read of the container's output brings
	packet  buffer // what a read of a client brings
	log     logFile
	streams [2]stream // stdout and stderr, or the terminal and nothing
	stdin   stdin
	console int // the terminal's master, or -1
	control control
	init    initProcess
	guest   guest

	awaited      *client   // the container waits for it, see hold
	awaitedUntil time.Time // and no longer than this
	lastRead     time.Time
	used         bool // buffers were used since they were given back
	unheard      bool // nobody read the answer
	recorded     bool // the exit record is written
	leaveBy      time.Time
}

func newMonitor(spec wire.Spec) *monitor {
	m := &monitor{spec: spec, console: -1}
	m.log.fd = -1
	m.streams = [2]stream{{fd: -1}, {fd: -1}}
	m.stdin = stdin{m: m, fd: -1, tty: spec.Terminal}
	m.control = control{m: m, fd: -1}
	m.init = initProcess{m: m, pidfd: -1, oom: oomWatch{m: m, fd: -1}}
	m.guest = guest{m: m, fds: [3]int{-1, -1, -1}, starter: child{pidfd: -1}, waiter: child{pidfd: -1}, answer: -1}
	return m
}

// run makes the container and stays until it has ended. An error says that
// there is no container, and nothing left of one.
func (m *monitor) run() error {
	if err := m.prepare(); err != nil {
		return err
	}
	if err := m.create(); err != nil {
		m.withdraw()
		return err
	}
	shieldSignals()
	if err := m.announce(); err != nil {
		m.undo()
		return err
	}
	m.giveBack()
	for !m.done() {
		if !m.poll.poll() {
			m.idle()
		}
		m.attend()
	}
	if m.unheard {
		m.undo()
	}
	m.log.close()
	return nil
}

// idle waits for something to happen. Children are reaped last before that, as
// the signal of one that ends is missed before the wait has begun.
func (m *monitor) idle() {
	if m.init.reap(); !m.init.ended || m.recorded {
		m.poll.block(m.timeout())
	}
}

// prepare makes what needs no container, so that it fails before there is one.
func (m *monitor) prepare() (err error) {
	if err := unix.Chdir(m.spec.RunDir); err != nil {
		return wrap("enter run directory", err)
	}
	if err := m.poll.open(); err != nil {
		return err
	}
	out, err := newBuffer(outSize)
	if err != nil {
		return err
	}
	if m.in, err = newBuffer(readSize); err != nil {
		return err
	}
	if m.packet, err = newBuffer(wire.MaxPayload + 4096); err != nil {
		return err
	}
	if err := m.log.open(m.spec.LogPath, out); err != nil {
		return err
	}
	return m.control.open()
}

// withdraw takes back what prepare left in the file system.
func (m *monitor) withdraw() { _ = unix.Unlink(wire.ControlSocket) }

// announce starts to watch everything and tells the daemon of the container.
func (m *monitor) announce() error {
	err := errors.Join(m.init.watch(), m.control.watch())
	for i := range m.streams {
		err = errors.Join(err, m.streams[i].watch())
	}
	if err != nil {
		return err
	}
	if err := answer(m.init.pid, m.init.start, ""); err != nil {
		return wrap("answer the daemon", err)
	}
	return m.poll.add(wire.StartedFD, 0, (*answered)(m))
}

// answered is the monitor in its wait for the daemon to close the answer's pipe.
type answered monitor

// ready finds out whether the answer was read. If it was not, the daemon is gone
// or has given up, and will believe that the container was never made.
func (a *answered) ready(uint32) {
	unread, err := unix.IoctlGetInt(wire.StartedFD, unix.TIOCINQ)
	a.unheard = err != nil || unread > 0
	a.poll.drop(wire.StartedFD)
	_ = unix.Close(wire.StartedFD)
}

// done says whether it is time to leave.
func (m *monitor) done() bool {
	if m.unheard {
		return true
	}
	return m.recorded && (!m.streaming() || !time.Now().Before(m.leaveBy))
}

func (m *monitor) streaming() bool {
	return m.streams[0].open() || m.streams[1].open()
}

// timeout is how long to wait for events, in milliseconds.
func (m *monitor) timeout() int {
	var d time.Duration
	switch {
	case m.recorded:
		d = time.Until(m.leaveBy)
	case m.awaited != nil:
		d = time.Until(m.awaitedUntil)
	case m.guest.starter.pid > 0:
		if d = time.Until(m.guest.startBy); m.used {
			d = min(d, quiet)
		}
	case m.used:
		d = quiet
	case m.init.foster:
		d = orphanPause
	default:
		return -1
	}
	return max(0, int((d+time.Millisecond-1)/time.Millisecond))
}

// attend does what has to be done at some time.
func (m *monitor) attend() {
	if m.init.ended && !m.recorded {
		m.conclude()
	}
	if cl := m.awaited; cl != nil && !time.Now().Before(m.awaitedUntil) {
		cl.leave()
	}
	m.guest.attend()
	if m.used && time.Since(m.lastRead) >= quiet {
		m.giveBack()
	}
}

// took notes a read of n bytes, and lets a brisk writer get ahead so that there
// is more to read at once.
func (m *monitor) took(s *stream, n int) {
	now := time.Now()
	if n < readSize/2 && now.Sub(m.lastRead) < briskly && !m.init.ended {
		lag := unix.NsecToTimespec(int64(s.size / bytesPerLag))
		_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&lag)), 0, 0)
		now = time.Now()
	}
	m.lastRead = now
	m.touched(n)
}

// touched notes that n bytes of a buffer were used. A few pages are not worth
// being woken up for to give them back.
func (m *monitor) touched(n int) { m.used = m.used || n > 4096 }

// giveBack returns the buffers' memory. Nothing is in them between two events.
func (m *monitor) giveBack() {
	m.in.release()
	m.packet.release()
	m.log.out.release()
	m.used = false
}

// held says whether the container's output has to stay where it is because a
// client that it has to wait for is behind.
func (m *monitor) held() bool {
	if m.awaited == nil && !m.recorded {
		if cl := m.control.laggard(); cl != nil {
			m.hold(cl)
		}
	}
	return m.awaited != nil
}

func (m *monitor) hold(cl *client) {
	m.awaited, m.awaitedUntil = cl, time.Now().Add(patience)
	cl.awaited = true
	cl.setInterest()
	for i := range m.streams {
		m.poll.drop(m.streams[i].fd)
	}
}

// release ends a hold.
func (m *monitor) release() {
	cl := m.awaited
	m.awaited = nil
	cl.awaited = false
	cl.setInterest()
	for i := range m.streams {
		_ = m.streams[i].watch()
	}
}

// resize sets the terminal's size.
func (m *monitor) resize(width, height uint16) error {
	if m.console < 0 {
		return errors.New("the container has no terminal")
	}
	return unix.IoctlSetWinsize(m.console, unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
}
