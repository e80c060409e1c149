// Package proc identifies processes by pid and start time, never by pid alone, reads their
// properties in /proc, and watches them through pidfds.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrGone reports that the process of a Ref has exited. Another process may have its pid now.
var ErrGone = errors.New("process is gone")

// Ref identifies a process until the machine is rebooted.
type Ref struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // start time in clock ticks since boot
}

// Identify returns the Ref of the process that has the pid now. It returns ErrGone if there is no
// such process.
func Identify(pid int) (Ref, error) {
	s, err := ReadStat(pid)
	return s.Ref, err
}

// Open returns a pidfd of the process, or ErrGone. The pid cannot be reused while the pidfd is
// open.
func (r Ref) Open() (*os.File, error) {
	fd, err := unix.PidfdOpen(r.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("pid %d: %w", r.PID, ErrGone)
	}
	if err != nil {
		return nil, fmt.Errorf("pidfd_open %d: %w", r.PID, err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	// Compare the start time only now: the pidfd keeps the pid from being reused.
	now, err := Identify(r.PID)
	if err == nil && now != r {
		err = fmt.Errorf("pid %d: %w", r.PID, ErrGone)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Alive reports whether the process exists and is not a zombie.
func (r Ref) Alive() bool {
	s, err := ReadStat(r.PID)
	return err == nil && s.Ref == r && !s.Zombie()
}

// Signal sends sig to the process. It returns ErrGone if the process has exited, and never signals
// another process.
func (r Ref) Signal(sig unix.Signal) error {
	f, err := r.Open()
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.PidfdSendSignal(int(f.Fd()), sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("pid %d: %w", r.PID, ErrGone)
	}
	return err
}

// Stat contains fields of /proc/PID/stat. The pids are valid in the caller's PID namespace.
type Stat struct {
	Ref
	State  byte
	Parent int
	// Session is 0 if the session leader is outside of the caller's PID namespace.
	Session int
	// Forked reports whether the process has not called execve(2) since the fork. The first process of a container then
	// still belongs to the OCI runtime, unless CRIU has restored the process.
	Forked bool
}

// Zombie reports whether the process has exited, but its parent has not yet reaped it.
func (s *Stat) Zombie() bool { return s.State == 'Z' || s.State == 'X' }

// ReadStat reads /proc/PID/stat. It returns ErrGone if there is no such process.
//
// Package conmon/monitor has its own parser, which needs neither fmt nor new memory.
func ReadStat(pid int) (Stat, error) {
	if pid <= 0 {
		return Stat{}, fmt.Errorf("pid %d: %w", pid, ErrGone)
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return Stat{}, fmt.Errorf("pid %d: %w", pid, ErrGone)
	}
	if err != nil {
		return Stat{}, err
	}
	return parseStat(pid, b)
}

// forkNoExec is PF_FORKNOEXEC of include/linux/sched.h in the flags of /proc/PID/stat.
const forkNoExec = 0x40

// parseStat parses the content of /proc/PID/stat, see proc_pid_stat(5).
func parseStat(pid int, b []byte) (Stat, error) {
	// The command name may contain spaces and parentheses, so count the fields after the last ")".
	end := bytes.LastIndexByte(b, ')')
	fields := bytes.Fields(b[end+1:])
	const state, parent, session, flags, start = 0, 1, 3, 6, 19 // the numbers in proc_pid_stat(5), minus 3
	if end < 0 || len(fields) <= start {
		return Stat{}, fmt.Errorf("pid %d: stat has too few fields", pid)
	}
	s := Stat{Ref: Ref{PID: pid}, State: fields[state][0]}
	var errParent, errSession, errStart error
	s.Parent, errParent = strconv.Atoi(string(fields[parent]))
	s.Session, errSession = strconv.Atoi(string(fields[session]))
	s.Start, errStart = strconv.ParseUint(string(fields[start]), 10, 64)
	bits, errFlags := strconv.ParseUint(string(fields[flags]), 10, 64)
	s.Forked = bits&forkNoExec != 0
	if err := errors.Join(errParent, errSession, errStart, errFlags); err != nil {
		return Stat{}, fmt.Errorf("pid %d: parse stat: %w", pid, err)
	}
	return s, nil
}

// StatusField returns a field of /proc/PID/status without surrounding space. For a thread, pid may
// be the thread id. ok is false if there is no such process, thread or field.
func StatusField(pid int, name string) (value string, ok bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return "", false
	}
	for line := range bytes.Lines(b) {
		key, value, found := bytes.Cut(line, []byte(":"))
		if found && string(key) == name {
			return string(bytes.TrimSpace(value)), true
		}
	}
	return "", false
}
