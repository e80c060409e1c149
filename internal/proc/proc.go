// Package proc knows processes by pid and start time, never by pid alone, and
// watches them through pidfds.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrGone says that the process named by a Ref has ended; its pid may be
// another process's by now.
var ErrGone = errors.New("process is gone")

// Ref identifies a process for as long as the machine is up.
type Ref struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // start time in clock ticks since boot
}

// Identify reads the start time of pid. It fails with ErrGone when there is no
// such process.
func Identify(pid int) (Ref, error) {
	start, _, err := stat(pid)
	if err != nil {
		return Ref{}, err
	}
	return Ref{PID: pid, Start: start}, nil
}

// stat returns the start time and the state letter of pid.
func stat(pid int) (start uint64, state byte, err error) {
	if pid <= 0 {
		return 0, 0, fmt.Errorf("pid %d: %w", pid, ErrGone)
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return 0, 0, fmt.Errorf("pid %d: %w", pid, ErrGone)
	}
	if err != nil {
		return 0, 0, err
	}
	// The command name may hold anything, so fields count from the last ')'.
	end := bytes.LastIndexByte(b, ')')
	fields := bytes.Fields(b[end+1:])
	const startField = 22 - 3 // fields[0] is field 3 of proc_pid_stat(5)
	if end < 0 || len(fields) <= startField {
		return 0, 0, fmt.Errorf("pid %d: stat has too few fields", pid)
	}
	start, err = strconv.ParseUint(string(fields[startField]), 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("pid %d: start time: %w", pid, err)
	}
	return start, fields[0][0], nil
}

// Open returns a pidfd of the process, or ErrGone. Having it open keeps the
// pid from being taken for another process's.
func (r Ref) Open() (*os.File, error) {
	fd, err := unix.PidfdOpen(r.PID, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("pid %d: %w", r.PID, ErrGone)
	}
	if err != nil {
		return nil, fmt.Errorf("pidfd_open %d: %w", r.PID, err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	// Only now is the pid pinned, so only now does the comparison hold.
	start, _, err := stat(r.PID)
	if err == nil && start != r.Start {
		err = fmt.Errorf("pid %d: %w", r.PID, ErrGone)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Alive says whether the process exists and has not ended. A zombie has ended.
func (r Ref) Alive() bool {
	start, state, err := stat(r.PID)
	return err == nil && start == r.Start && state != 'Z' && state != 'X'
}

// Signal sends sig to the process, and only to it. ErrGone when it has ended.
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
