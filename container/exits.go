package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/criserver/criserver/conmon"
	"github.com/criserver/criserver/internal/ids"
	"github.com/criserver/criserver/internal/proc"
	"github.com/criserver/criserver/oci"
	"github.com/fsnotify/fsnotify"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// recordGrace is how long a monitor that lives may take to write the exit
	// record once the first process has ended. After that the exit code comes from
	// the kernel or is unknown, so recordGrace is long enough for a machine under
	// load. The daemon does not wait when the monitor has ended.
	recordGrace = time.Minute
	// statusGrace is how long the parent of an orphan may take to reap it. The
	// kernel does not report the status earlier. The daemon does not wait where the
	// kernel never reports the status.
	statusGrace = 10 * time.Second
	// exitUnknown is the exit code when nobody knows. It is never 0.
	exitUnknown = 255
)

// Run takes the ends of containers from the exit records that monitors write,
// until ctx ends. It also buries processes that the daemon has adopted.
func (m *Manager) Run(ctx context.Context) error {
	defer close(m.ending)
	if err := os.MkdirAll(m.exitsDir(), 0o700); err != nil {
		return err
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch exit records: %w", err)
	}
	defer w.Close()
	if err := w.Add(m.exitsDir()); err != nil {
		return fmt.Errorf("watch exit records: %w", err)
	}
	var wg sync.WaitGroup
	defer m.endTells()
	defer wg.Wait()
	wg.Go(func() { oci.ReapOrphans(ctx) })
	wg.Go(m.scanExits) // what was written before the watch
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev := <-w.Events:
			if ev.Has(fsnotify.Create) {
				wg.Go(func() { m.exitWritten(filepath.Base(ev.Name)) })
			}
		case err := <-w.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("watch exit records: %w", err)
			}
			wg.Go(m.scanExits)
		}
	}
}

func (m *Manager) scanExits() {
	entries, err := os.ReadDir(m.exitsDir())
	if err != nil {
		logrus.WithError(err).Error("exit records cannot be listed")
	}
	for _, e := range entries {
		m.exitWritten(e.Name())
	}
}

func (m *Manager) exitWritten(id string) {
	if !ids.Valid(id) {
		return // a file on its way to its name
	}
	m.mu.RLock()
	c := m.containers[id]
	m.mu.RUnlock()
	// One that is still in the making looks for its record when it is made.
	if c != nil && c.snap.Load() != nil {
		m.takeExit(c)
	}
}

// takeExit records the end from the monitor's record, if there is one. It says
// whether the container has ended.
func (m *Manager) takeExit(c *container) bool {
	if c.hasEnded() {
		return true
	}
	x, err := conmon.ReadExit(m.exitFile(c.id))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			c.log().WithError(err).Error("exit record cannot be read")
		}
		return false
	}
	e := end{Finished: x.FinishedAt, ExitCode: x.ExitCode, Reason: reasonOf(x.ExitCode)}
	if x.OOMKilled && x.ExitCode != 0 {
		e.Reason = ReasonOOMKilled
	}
	if x.LogLost > 0 {
		c.log().WithField("bytes", x.LogLost).Warn("a part of the container's log could not be written and is lost")
		e.Message = fmt.Sprintf("%d bytes of the log could not be written and are lost", x.LogLost)
	}
	m.end(c, e)
	return true
}

func reasonOf(code int32) string {
	if code == 0 {
		return ReasonCompleted
	}
	return ReasonError
}

// end records the end and does what follows from it.
func (m *Manager) end(c *container, e end) {
	if !c.finish(e) {
		return
	}
	s := c.snap.Load()
	c.log().WithFields(logrus.Fields{"exitCode": s.ExitCode, "reason": s.Reason}).Info("container ended")
	m.events.send(cri.ContainerEventType_CONTAINER_STOPPED_EVENT, s)
	if err := m.killRest(context.Background(), c); err != nil {
		c.log().WithError(err).Error("other processes of the ended container are left")
	}
	m.tellEnd(c)
}

// watch has the kernel tell of the ends of the monitor and of the first
// process: the second witness beside the exit record.
func (m *Manager) watch(c *container) {
	init, monitor := c.refs()
	monitorErr := m.cfg.Watcher.Watch(monitor, func(*os.File) { m.monitorEnded(c) })
	if errors.Is(monitorErr, proc.ErrGone) {
		m.monitorEnded(c)
		monitorErr = nil
	}
	initErr := m.cfg.Watcher.Watch(init, func(pidfd *os.File) { m.initEnded(c, pidfd) })
	if errors.Is(initErr, proc.ErrGone) {
		m.initEnded(c, nil)
		initErr = nil
	}
	if err := errors.Join(monitorErr, initErr); err != nil {
		c.log().WithError(err).Error("the container's processes cannot be watched")
		c.mu.Lock()
		c.unwatched = initErr != nil
		c.publish()
		c.mu.Unlock()
	}
}

// monitorEnded: usually it has left its record behind. One that was killed did
// not, and its container runs on without a log.
func (m *Manager) monitorEnded(c *container) {
	close(c.monitorGone)
	if m.takeExit(c) {
		return
	}
	c.log().Warn("the monitor has gone before its container: the log and attach are lost")
	if err := c.change(func(f *facts) { f.MonitorLost = true }); err != nil {
		c.log().WithError(err).Warn("the loss of the monitor is not on disk")
	}
	if c.runtime.Guest {
		go m.awaitInGuest(c) // it ends with the container, or with Run
	}
}

// initEnded waits for the monitor's record, and does without when the monitor
// is gone or silent.
func (m *Manager) initEnded(c *container, pidfd *os.File) {
	if m.takeExit(c) {
		return
	}
	grace := time.NewTimer(recordGrace)
	defer grace.Stop()
	select {
	case <-c.ended:
		return
	case <-m.ending: // the next daemon will see it all again
		return
	case <-c.monitorGone:
	case <-grace.C:
	}
	if !m.takeExit(c) {
		m.end(c, m.endWithoutRecord(c, pidfd))
	}
}

// endWithoutRecord asks the kernel for the exit status. It tells it to the
// parent, which the daemon is when the monitor died in its lifetime, and since
// Linux 6.15 to anybody once the process was reaped. What it does not tell is
// not made up.
func (m *Manager) endWithoutRecord(c *container, pidfd *os.File) end {
	e := end{Finished: time.Now().UnixNano(), ExitCode: exitUnknown, Reason: ReasonError}
	status, ok := exitStatus(c, pidfd)
	if !ok {
		e.Message = "the exit code is unknown: the monitor process had gone"
		return e
	}
	e.ExitCode = int32(status.ExitStatus())
	if status.Signaled() {
		e.ExitCode = 128 + int32(status.Signal())
	}
	e.Reason = reasonOf(e.ExitCode)
	e.Message = "the monitor process had gone; the exit code is the kernel's"
	return e
}

func exitStatus(c *container, pidfd *os.File) (unix.WaitStatus, bool) {
	if pidfd == nil || c.runtime.Guest { // the guest's status is not the container's
		return 0, false
	}
	// As long as it is a zombie the pid is its own.
	init, _ := c.refs()
	var status unix.WaitStatus
	if pid, err := unix.Wait4(init.PID, &status, unix.WNOHANG, nil); err == nil && pid == init.PID {
		return status, true
	}
	for deadline := time.Now().Add(statusGrace); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		status, err := proc.ExitStatus(pidfd)
		if err == nil {
			return status, true
		}
		if !errors.Is(err, proc.ErrNotReaped) {
			return 0, false
		}
	}
	return 0, false
}
