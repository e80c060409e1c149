package monitor

import (
	"bytes"
	"errors"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/wire"
)

// initProcess is the container's first process, which this process inherits
// from the OCI runtime, or the kernel of its guest.
type initProcess struct {
	m         *monitor
	pid       int
	start     uint64
	pidfd     int
	oom       oomWatch
	oomKilled bool // the OOM killer ended the container
	foster    bool // it leaves its orphans to this process
	ended     bool
	status    unix.WaitStatus
	known     bool // status is
	finished  time.Time
}

// adopt learns of the process from the file that the OCI runtime wrote.
func (p *initProcess) adopt(pidFile string) error {
	b, err := readFile(pidFile, p.m.in[:64])
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil || pid <= 0 {
		return errors.New("read pid file: no pid in it")
	}
	// As a child that nobody has waited for, it cannot give its pid to another.
	if p.pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
		return wrap("pidfd_open", err)
	}
	if p.start, err = startTime(pid, p.m.in); err != nil {
		return err
	}
	p.pid = pid
	p.oom.begin(pid)
	p.foster = !p.m.spec.Guest && samePIDNamespace(pid)
	return nil
}

// startTime returns when a process was started, in clock ticks since boot. It
// reads what proc.Identify does, with no memory but buf.
func startTime(pid int, buf []byte) (uint64, error) {
	b, err := readFile("/proc/"+strconv.Itoa(pid)+"/stat", buf)
	if err != nil {
		return 0, err
	}
	// Fields are counted behind the command's name, which may hold anything.
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
	p.oom.watch()
	return p.m.poll.add(p.pidfd, unix.EPOLLIN, p)
}

// ready is called when the process has ended.
func (p *initProcess) ready(uint32) {
	p.reap()
	if !p.ended {
		// Some other process waited for it, or it never was a child.
		p.end(0, false)
	}
}

// samePIDNamespace says whether a process is in the PID namespace of this one,
// rather than in one with a process 1 of its own to take its orphans.
func samePIDNamespace(pid int) bool {
	var own, other unix.Stat_t
	err := errors.Join(unix.Stat("/proc/self/ns/pid", &own), unix.Stat("/proc/"+strconv.Itoa(pid)+"/ns/pid", &other))
	return err == nil && own.Ino == other.Ino
}

// reap waits for every child that has ended: the container's first process, and
// the orphans of a container in this process's PID namespace. An end interrupts
// the wait for events. Where that signal goes unnoticed, because it came in the
// moment before the wait or to another of the Go runtime's threads, orphans wait
// for the next event, or for at most orphanPause.
func (p *initProcess) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		switch pid {
		case p.pid:
			p.end(status, true)
		case p.m.guest.starter.pid:
			p.m.guest.started(status)
		case p.m.guest.waiter.pid:
			p.m.guest.reaped()
		}
	}
}

func (p *initProcess) end(status unix.WaitStatus, known bool) {
	if p.ended {
		return
	}
	p.oomKilled = p.oom.ended(status, known)
	p.ended, p.status, p.known = true, status, known
	p.finished = time.Now()
	p.m.poll.drop(p.pidfd)
	closeFD(&p.pidfd)
	p.m.guest.stopStart()
	p.m.guest.closeFDs()
}

// exit makes the record of how it ended.
func (p *initProcess) exit() wire.Exit {
	e := wire.Exit{
		Version:    wire.Version,
		ID:         p.m.spec.ID,
		FinishedAt: p.finished.UnixNano(),
		OOMKilled:  p.oomKilled,
		LogLost:    p.m.log.lost,
	}
	switch {
	case !p.known:
		e.ExitCode, e.Unknown = 255, true
	case p.status.Signaled():
		e.Signal = int(p.status.Signal())
		e.ExitCode = int32(128 + e.Signal)
	default:
		e.ExitCode = int32(p.status.ExitStatus())
	}
	return e
}
