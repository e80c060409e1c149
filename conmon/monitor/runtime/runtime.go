// Package runtime runs the commands of the OCI runtime for the monitor: it starts the command, receives the terminal of
// the container, and finds the reason of a failure. It knows nothing of the streams of the container.
package runtime

import (
	"bytes"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/monitor/sys"
	"github.com/criserver/criserver/conmon/wire"
)

// Args returns a command line of the OCI runtime.
func Args(spec *wire.Spec, args ...string) []string {
	line := append(make([]string, 0, 32), spec.Runtime...)
	line = append(line, "--log", spec.RunDir+"/"+wire.RuntimeLog, "--log-format", "json")
	return append(line, args...)
}

// Process is a process of the OCI runtime. PID is 0 when the process was waited for, and PidFD is -1 when it is closed.
type Process struct {
	PID, PidFD int
}

// None returns a Process that was not started.
func None() Process { return Process{PidFD: -1} }

// Start starts a command in the run directory. A descriptor of -1 stands for the monitor's own,
// which is /dev/null. The monitor keeps the other descriptors open.
func Start(args []string, spec *wire.Spec, fds [3]int) (Process, error) {
	return StartWith(&syscall.SysProcAttr{}, args, spec.RuntimeEnv, fds)
}

// StartWith is Start with attributes and the environment of the process, or nil for the environment of the monitor.
func StartWith(proc *syscall.SysProcAttr, args, env []string, fds [3]int) (Process, error) {
	c := None()
	proc.PidFD = &c.PidFD
	attr := syscall.ProcAttr{Env: env, Sys: proc}
	for i, fd := range fds {
		if fd < 0 {
			fd = i
		}
		attr.Files = append(attr.Files, uintptr(fd))
	}
	pid, err := syscall.ForkExec(args[0], args, &attr)
	if err != nil {
		return c, sys.Wrap("start "+args[0], err)
	}
	c.PID = pid
	if c.PidFD < 0 { // Linux before 5.2
		if c.PidFD, err = unix.PidfdOpen(pid, 0); err != nil {
			c.Kill()
			return c, sys.Wrap("pidfd_open", err)
		}
	}
	return c, nil
}

// Wait waits until the process has exited.
func (c *Process) Wait() (unix.WaitStatus, error) {
	var status unix.WaitStatus
	for c.PID > 0 {
		pid, err := unix.Wait4(c.PID, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return status, err
		}
		if pid == c.PID {
			c.PID = 0
		}
	}
	return status, nil
}

// Kill kills the process if it is running, and waits until it has exited.
func (c *Process) Kill() {
	if c.PID > 0 {
		_ = unix.Kill(c.PID, unix.SIGKILL) // the pid cannot be reused before the wait
		_, _ = c.Wait()
	}
}

// Close closes the pidfd.
func (c *Process) Close() { sys.CloseFD(&c.PidFD) }

// Limits in bytes.
const (
	maxOutputTail = 4096 // of the runtime's output that is kept
	maxErrorText  = 2048 // of the runtime's message in an error
)

// Tail keeps the last maxOutputTail bytes.
type Tail struct{ b []byte }

// Add adds b to the end.
func (t *Tail) Add(b []byte) {
	t.b = append(t.b, b[max(0, len(b)-maxOutputTail):]...)
	if over := len(t.b) - maxOutputTail; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
}

// Text returns the kept bytes without white space around them.
func (t *Tail) Text() string { return strings.TrimSpace(string(t.b)) }

// Failure returns why the OCI runtime failed: the last error in its log, or else its
// output, or else status. buf is scratch space for the log.
func Failure(output, status string, buf []byte) string {
	b, err := sys.ReadFile(wire.RuntimeLog, buf)
	if err == nil {
		if msg := lastLogError(b); msg != "" {
			return truncateStart(msg)
		}
	}
	if output != "" {
		return status + ": " + truncateStart(output)
	}
	return status
}

// DescribeStatus describes a wait status of the runtime in an error message.
func DescribeStatus(status unix.WaitStatus) string {
	if status.Signaled() {
		return status.Signal().String()
	}
	return "exit status " + strconv.Itoa(status.ExitStatus())
}

// lastLogError returns the last error in an OCI runtime's log of JSON lines, or "". It
// corresponds to oci/runtime.LogError, but needs no encoding/json: see package wire.
func lastLogError(b []byte) string {
	for len(b) > 0 {
		b = bytes.TrimRight(b, "\n")
		start := bytes.LastIndexByte(b, '\n') + 1
		level, msg, err := wire.DecodeLogLine(b[start:])
		if err == nil && msg != "" && (level == "error" || level == "fatal" || level == "panic") {
			return strings.TrimSpace(msg)
		}
		b = b[:start]
	}
	return ""
}

// truncateStart keeps the end of s, which contains the cause in the messages of OCI runtimes.
func truncateStart(s string) string {
	if len(s) <= maxErrorText {
		return s
	}
	s = s[len(s)-maxErrorText:]
	for len(s) > 0 && !utf8.RuneStart(s[0]) {
		s = s[1:]
	}
	return "…" + s
}
