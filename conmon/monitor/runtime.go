package monitor

import (
	"bytes"
	"strings"
	"syscall"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/wire"
)

// runtimeArgs returns a command line of the OCI runtime.
func runtimeArgs(spec *wire.Spec, args ...string) []string {
	line := append(make([]string, 0, 32), spec.Runtime...)
	line = append(line, "--log", spec.RunDir+"/"+wire.RuntimeLog, "--log-format", "json")
	return append(line, args...)
}

// child is a process of the OCI runtime.
type child struct {
	pid, pidfd int
}

// spawn starts a command in the run directory. A descriptor of -1 stands for the monitor's own,
// which is /dev/null. The monitor keeps the other descriptors open.
func spawn(args []string, spec *wire.Spec, fds [3]int) (child, error) {
	return spawnWith(&syscall.SysProcAttr{}, args, spec.RuntimeEnv, fds)
}

// spawnWith is spawn with attributes and the environment of the process, or nil for the environment of the monitor.
func spawnWith(sys *syscall.SysProcAttr, args, env []string, fds [3]int) (child, error) {
	c := child{pidfd: -1}
	sys.PidFD = &c.pidfd
	attr := syscall.ProcAttr{Env: env, Sys: sys}
	for i, fd := range fds {
		if fd < 0 {
			fd = i
		}
		attr.Files = append(attr.Files, uintptr(fd))
	}
	pid, err := syscall.ForkExec(args[0], args, &attr)
	if err != nil {
		return c, wrap("start "+args[0], err)
	}
	c.pid = pid
	if c.pidfd < 0 { // Linux before 5.2
		if c.pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			c.kill()
			return c, wrap("pidfd_open", err)
		}
	}
	return c, nil
}

// wait waits until the process has exited.
func (c *child) wait() (unix.WaitStatus, error) {
	var status unix.WaitStatus
	for c.pid > 0 {
		pid, err := unix.Wait4(c.pid, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return status, err
		}
		if pid == c.pid {
			c.pid = 0
		}
	}
	return status, nil
}

// kill kills the process if it is running, and waits until it has exited.
func (c *child) kill() {
	if c.pid > 0 {
		_ = unix.Kill(c.pid, unix.SIGKILL) // the pid cannot be reused before the wait
		_, _ = c.wait()
	}
}

func (c *child) close() { closeFD(&c.pidfd) }

// Limits in bytes.
const (
	maxOutputTail = 4096 // of the runtime's output that is kept
	maxErrorText  = 2048 // of the runtime's message in an error
)

// tail keeps the last maxOutputTail bytes.
type tail struct{ b []byte }

func (t *tail) add(b []byte) {
	t.b = append(t.b, b[max(0, len(b)-maxOutputTail):]...)
	if over := len(t.b) - maxOutputTail; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
}

func (t *tail) text() string { return strings.TrimSpace(string(t.b)) }

// runtimeFailure returns why the OCI runtime failed: the last error in its log, or else its
// output, or else status. buf is scratch space for the log.
func runtimeFailure(output, status string, buf []byte) string {
	b, err := readFile(wire.RuntimeLog, buf)
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
