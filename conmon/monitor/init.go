package monitor

import (
	"bytes"
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/monitor/oom"
	"github.com/criserver/criserver/conmon/monitor/sys"
	"github.com/criserver/criserver/conmon/wire"
)

// initProcess is the container's first process, which becomes a child of the monitor when the
// OCI runtime exits. For a container in a guest it is the process of the guest's kernel. A container
// that is restored has no process, and pid is 0, until it is started.
type initProcess struct {
	m         *monitor
	pid       int
	start     uint64
	pidfd     int
	oom       oom.Watch
	oomKilled bool // the OOM killer ended the container
	// sharesPIDNS: the container is in the PID namespace of the monitor, which therefore inherits
	// the container's orphans.
	sharesPIDNS bool
	exited      bool
	status      unix.WaitStatus
	statusKnown bool // status is valid
	finishedAt  time.Time
}

// identify reads the pid file that the OCI runtime wrote and opens the process.
func (p *initProcess) identify(pidFile string) error {
	b, err := sys.ReadFile(pidFile, p.m.readBuf[:64])
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil || pid <= 0 {
		return errors.New("read pid file: it contains no pid")
	}
	// The pid cannot be reused: the process is a child that the monitor has not waited for.
	if p.pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
		return sys.Wrap("pidfd_open", err)
	}
	if p.start, err = startTime(pid, p.m.readBuf); err != nil {
		return err
	}
	p.pid = pid
	p.oom.Find(pid, p.m.readBuf)
	p.sharesPIDNS = !p.m.spec.Guest && samePIDNamespace(pid)
	return nil
}

// startTime returns the start time of a process, in clock ticks since boot, as proc.Identify
// does. The monitor does not use package proc, because that imports fmt and allocates memory
// for each file; startTime reads into buf.
func startTime(pid int, buf []byte) (uint64, error) {
	b, err := sys.ReadFile("/proc/"+strconv.Itoa(pid)+"/stat", buf)
	if err != nil {
		return 0, err
	}
	// The command name may contain spaces and parentheses, so count the fields after the last
	// ")".
	b = b[bytes.LastIndexByte(b, ')')+1:]
	for range 22 - 2 {
		_, rest, found := bytes.Cut(b, []byte(" "))
		if !found {
			return 0, errors.New("read start time: too few fields")
		}
		b = rest
	}
	field, _, _ := bytes.Cut(b, []byte(" "))
	return strconv.ParseUint(string(field), 10, 64)
}

func (p *initProcess) watch() error {
	p.oom.Start()
	return p.m.poll.Add(p.pidfd, unix.EPOLLIN, p)
}

// Ready is called when the process has exited.
func (p *initProcess) Ready(uint32) {
	p.reap()
	if !p.exited {
		// Another process has waited for it, or it never was a child.
		p.setExited(0, false)
	}
}

// samePIDNamespace reports whether a process is in the PID namespace of the monitor. In another
// PID namespace, process 1 of that namespace inherits the orphans.
func samePIDNamespace(pid int) bool {
	var self, other unix.Stat_t
	err := errors.Join(unix.Stat("/proc/self/ns/pid", &self), unix.Stat("/proc/"+strconv.Itoa(pid)+"/ns/pid", &other))
	return err == nil && self.Ino == other.Ino
}

// reap waits for every child that has exited: the container's first process, the processes of
// the OCI runtime, and the orphans of a container in the monitor's PID namespace. The SIGCHLD
// of a child interrupts the wait for events. If the signal arrives just before the wait, or on
// another thread of the Go runtime, orphans stay zombies until the next event, or for at most
// reapInterval.
func (p *initProcess) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(p.m.deferred.reapable(), &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		switch pid {
		case p.pid:
			p.setExited(status, true)
		case p.m.deferred.proc.PID:
			p.m.deferred.exited(status)
		case p.m.guest.waitProc.PID:
			p.m.guest.waitExited()
		}
	}
}

// setExited records the exit of the process and stops what depends on the process. Only the first
// call counts.
func (p *initProcess) setExited(status unix.WaitStatus, statusKnown bool) {
	if p.exited {
		return
	}
	p.oomKilled = p.oom.KilledContainer(status, statusKnown)
	p.exited, p.status, p.statusKnown = true, status, statusKnown
	p.finishedAt = time.Now()
	p.m.poll.Remove(p.pidfd)
	sys.CloseFD(&p.pidfd)
	p.m.deferred.kill()
	p.m.deferred.closeFDs()
}

// exitRecord returns the exit record of the container.
func (p *initProcess) exitRecord() wire.Exit {
	e := wire.Exit{
		Version:    wire.Version,
		ID:         p.m.spec.ID,
		FinishedAt: p.finishedAt.UnixNano(),
		OOMKilled:  p.oomKilled,
		LogLost:    p.m.log.Lost(),
	}
	switch {
	case !p.statusKnown:
		e.ExitCode, e.Unknown = 255, true
	case p.status.Signaled():
		e.Signal = int(p.status.Signal())
		e.ExitCode = int32(128 + e.Signal)
	default:
		e.ExitCode = int32(p.status.ExitStatus())
	}
	return e
}
