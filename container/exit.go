package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/criserver/criserver/container/exits"
	"github.com/criserver/criserver/container/record"
	"github.com/criserver/criserver/internal/proc"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// recordGrace is how long a running monitor may take to write the exit record after the
	// exit of the first process. After that, the exit code comes from the kernel or is
	// unknown, so recordGrace is long enough for a machine under load. The daemon does not
	// wait if the monitor has exited.
	recordGrace = time.Minute
	// exitUnknown is the exit code if the exit code is unknown. It must not be 0.
	exitUnknown = 255
)

// takeExit records the exit from the exit record of the monitor, if there is one. It
// reports whether the container has exited.
func (m *Manager) takeExit(c *container) bool {
	if c.hasExited() {
		return true
	}
	x, err := m.exits.Read(c.id)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			c.log().WithError(err).Error("read the exit record")
		}
		return false
	}
	e := record.Exit{Finished: x.FinishedAt, ExitCode: x.ExitCode, Reason: reasonOf(x.ExitCode)}
	if x.OOMKilled && x.ExitCode != 0 {
		e.Reason = ReasonOOMKilled
	}
	if x.LogLost > 0 {
		c.log().WithField("bytes", x.LogLost).Warn("a part of the log of the container is lost")
		e.Message = fmt.Sprintf("%d bytes of the log are lost", x.LogLost)
	}
	m.recordExit(c, e, ExitFacts{OOMKilled: x.OOMKilled, LogLost: x.LogLost})
	return true
}

func reasonOf(code int32) string {
	if code == 0 {
		return ReasonCompleted
	}
	return ReasonError
}

// recordExit records the exit, sends the event, kills the remaining processes and
// notifies plugins.
func (m *Manager) recordExit(c *container, e record.Exit, facts ExitFacts) {
	if !c.setExit(e) {
		return
	}
	s := c.snap.Load()
	if m.cfg.Observer != nil {
		facts.Reason = s.Reason
		m.cfg.Observer.ContainerExited(facts)
	}
	c.log().WithFields(logrus.Fields{"exitCode": s.ExitCode, "reason": s.Reason}).Info("container exited")
	m.events.send(cri.ContainerEventType_CONTAINER_STOPPED_EVENT, s)
	if err := m.killRemaining(context.Background(), c); err != nil {
		c.log().WithError(err).Error("other processes of the exited container are still running")
	}
	m.notifyExit(c)
}

// watch watches the monitor and the first process, because a monitor can be killed before
// it writes the exit record.
func (m *Manager) watch(c *container) {
	_, monitor := c.refs()
	err := m.cfg.Watcher.Watch(monitor, func(*os.File) { m.onMonitorExit(c) })
	if errors.Is(err, proc.ErrGone) {
		m.onMonitorExit(c)
	} else if err != nil {
		c.log().WithError(err).Error("watch the monitor of the container")
	}
	m.watchInit(c)
}

// watchInit watches the first process, if the container has one.
func (m *Manager) watchInit(c *container) {
	init, _ := c.refs()
	if init == (proc.Ref{}) && c.rec.Restore != nil {
		return // see deferred.go
	}
	err := m.cfg.Watcher.Watch(init, func(pidfd *os.File) { m.onInitExit(c, pidfd) })
	if errors.Is(err, proc.ErrGone) {
		m.onInitExit(c, nil)
	} else if err != nil {
		c.log().WithError(err).Error("watch the first process of the container")
		c.mu.Lock()
		c.unwatched = true
		c.publish()
		c.mu.Unlock()
	}
}

// onMonitorExit is called when the monitor has exited. Usually the monitor has written an
// exit record. A killed monitor has not, and its container continues without a log.
func (m *Manager) onMonitorExit(c *container) {
	close(c.monitorExited)
	if m.takeExit(c) {
		return
	}
	if m.cfg.Observer != nil {
		m.cfg.Observer.MonitorCrashed()
	}
	if c.awaitsRestore() {
		go m.endUnrestored(c) // returns when the processes in the cgroup are killed
		return
	}
	c.log().Warn("the monitor exited before the container: the log is incomplete and attach is not possible")
	if err := c.change(func(f *record.Status) { f.MonitorLost = true }); err != nil {
		c.log().WithError(err).Warn("write the loss of the monitor to the state file")
	}
	if c.runtime.Guest {
		go m.awaitGuestExit(c) // returns when the container exits or Run ends
	}
}

// onInitExit is called when the first process has exited. It waits for the exit record,
// and continues without it if the monitor has exited or does not write it in time.
func (m *Manager) onInitExit(c *container, pidfd *os.File) {
	if m.takeExit(c) {
		return
	}
	grace := time.NewTimer(recordGrace)
	defer grace.Stop()
	select {
	case <-c.exited:
		return
	case <-m.stopping: // the next daemon records the exit
		return
	case <-c.monitorExited:
	case <-grace.C:
	}
	if !m.takeExit(c) {
		m.recordExit(c, m.exitWithoutRecord(c, pidfd), ExitFacts{})
	}
}

// exitWithoutRecord asks the kernel for the exit status. The daemon is the parent of the process if the monitor died
// during the life of the daemon. If the kernel does not report the status, the exit code is exitUnknown.
func (m *Manager) exitWithoutRecord(c *container, pidfd *os.File) record.Exit {
	e := record.Exit{Finished: time.Now().UnixNano(), ExitCode: exitUnknown, Reason: ReasonError}
	var status unix.WaitStatus
	known := false
	if pidfd != nil && !c.runtime.Guest { // the exit status of the guest is not the exit status of the container
		init, _ := c.refs()
		status, known = exits.KernelStatus(init, pidfd)
	}
	if !known {
		e.Message = "the exit code is unknown: the monitor process had exited"
		return e
	}
	e.ExitCode = int32(status.ExitStatus())
	if status.Signaled() {
		e.ExitCode = 128 + int32(status.Signal())
	}
	e.Reason = reasonOf(e.ExitCode)
	e.Message = "the monitor process had exited; the exit code is from the kernel"
	return e
}
