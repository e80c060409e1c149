package monitor

import (
	"math"
	"time"
)

// waitForEvents blocks until an event, a signal or a deadline. It reaps children first, because
// a SIGCHLD that arrives before the wait does not interrupt the wait.
func (m *monitor) waitForEvents() {
	if m.init.reap(); !m.init.exited || m.exitRecorded {
		m.poll.Wait(m.pollTimeout())
	}
}

// done reports whether the monitor can exit.
func (m *monitor) done() bool {
	if m.answerUnread {
		return true
	}
	return m.exitRecorded && (!m.streamsOpen() || !time.Now().Before(m.exitDeadline))
}

func (m *monitor) streamsOpen() bool {
	return m.streams[0].open() || m.streams[1].open()
}

// pollTimeout returns how long to wait for events, in milliseconds, or -1 for no limit.
func (m *monitor) pollTimeout() int {
	d := m.timerDelay()
	for i := range m.streams {
		if l := &m.streams[i].lines; l.Pending() > 0 {
			d = min(d, time.Until(l.Deadline()))
		}
	}
	if d == math.MaxInt64 {
		return -1
	}
	return max(0, int((d+time.Millisecond-1)/time.Millisecond))
}

// timerDelay returns the time until runTimers has work again, or math.MaxInt64 without a deadline. timerDelay ignores
// overdue lines.
func (m *monitor) timerDelay() (d time.Duration) {
	switch {
	case m.exitRecorded:
		d = time.Until(m.exitDeadline)
	case m.slowClient != nil:
		d = time.Until(m.slowClientDeadline)
	case m.deferred.proc.PID > 0:
		if d = time.Until(m.deferred.deadline); m.buffersUsed {
			d = min(d, idleTime)
		}
	case m.buffersUsed:
		d = idleTime
	case m.init.sharesPIDNS:
		d = reapInterval
	default:
		d = math.MaxInt64
	}
	return d
}

// runTimers does the work whose time has come: it records the exit of the container, disconnects a
// slow client, kills a start that takes too long, writes overdue lines and releases unused
// buffers.
func (m *monitor) runTimers() {
	if m.init.exited && !m.exitRecorded {
		m.recordExit()
	}
	if cl := m.slowClient; cl != nil && !time.Now().Before(m.slowClientDeadline) {
		cl.disconnect()
	}
	m.deferred.checkTimeout()
	for i := range m.streams {
		if s := &m.streams[i]; s.lines.Pending() > 0 && s.lines.Overdue(time.Now()) && s.idle() {
			s.flushLine()
		}
	}
	if m.buffersUsed && time.Since(m.lastRead) >= idleTime {
		m.releaseBuffers()
	}
}
