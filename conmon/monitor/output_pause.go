package monitor

import (
	"time"
)

// outputPaused reports whether the output of the container must stay in the pipe, because a client
// reads too slowly. Only a client that is attached with stdin can pause the output. outputPaused
// looks for a slow client and pauses the output if it finds one.
func (m *monitor) outputPaused() bool {
	if m.slowClient == nil && !m.exitRecorded {
		if cl := m.control.slowClient(); cl != nil {
			m.pauseOutput(cl)
		}
	}
	return m.slowClient != nil
}

// pauseOutput stops reading the container's output until cl reads or slowClientDeadline passes.
func (m *monitor) pauseOutput(cl *client) {
	m.slowClient, m.slowClientDeadline = cl, time.Now().Add(slowClientTimeout)
	cl.blocking = true
	cl.setInterest()
	for i := range m.streams {
		m.poll.Remove(m.streams[i].fd)
	}
}

// resumeOutput ends the pause that pauseOutput began.
func (m *monitor) resumeOutput() {
	cl := m.slowClient
	m.slowClient = nil
	cl.blocking = false
	cl.setInterest()
	for i := range m.streams {
		_ = m.streams[i].watch()
	}
}
