package monitor

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/wire"
)

// runtimeArgs is a command line of the OCI runtime.
func runtimeArgs(spec *wire.Spec, args ...string) []string {
	line := append(make([]string, 0, 32), spec.Runtime...)
	line = append(line, "--log", spec.RunDir+"/"+wire.RuntimeLog, "--log-format", "json")
	return append(line, args...)
}

// child is a process of the OCI runtime.
type child struct {
	pid, pidfd int
}

// spawn starts a command in the run directory. Descriptors of -1 are the
// monitor's own, /dev/null; all others stay here.
func spawn(args []string, spec *wire.Spec, fds [3]int) (child, error) {
	c := child{pidfd: -1}
	attr := syscall.ProcAttr{Env: spec.RuntimeEnv, Sys: &syscall.SysProcAttr{PidFD: &c.pidfd}}
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

// kill ends the process if it runs, and waits for that.
func (c *child) kill() {
	if c.pid > 0 {
		_ = unix.Kill(c.pid, unix.SIGKILL) // a child not yet waited for keeps its pid
		_, _ = c.wait()
	}
}

func (c *child) close() { closeFD(&c.pidfd) }

// deleteTime and orphanTime bound the parts of undo.
const (
	deleteTime = 60 * time.Second
	orphanTime = 15 * time.Second
)

// undo leaves nothing of the container, made or half-made. What the runtime
// says to that does not matter: most often that there is no such container.
func (m *monitor) undo() {
	m.withdraw()
	args := runtimeArgs(&m.spec, "delete", "--force", m.spec.ID)
	if c, err := spawn(args, &m.spec, [3]int{-1, -1, -1}); err == nil {
		// The runtime may wait for the container's processes to be gone, which
		// takes a parent that reaps them.
		ended := reapUntil(deleteTime, func(pid int) bool { return pid == c.pid })
		if !ended {
			c.kill()
		}
		c.close()
	}
	killOrphans()
}

// killOrphans ends all children. At this point they are what a runtime that was
// killed has left: half of a container's first process.
func killOrphans() {
	reapUntil(orphanTime, func(int) bool {
		for _, pid := range children() {
			_ = unix.Kill(pid, unix.SIGKILL) // a child not yet waited for keeps its pid
		}
		return false
	})
}

// reapUntil waits for children, and returns true when done says so of one of
// them, or false when there are no more or the time is over. done is also
// called, with 0, while nothing happens.
func reapUntil(limit time.Duration, done func(pid int) bool) bool {
	const step = 2 * time.Millisecond
	for end := time.Now().Add(limit); time.Now().Before(end); {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if err == unix.ECHILD {
			return false
		}
		if err == nil && done(pid) {
			return true
		}
		if pid <= 0 {
			_ = unix.Nanosleep(&unix.Timespec{Nsec: int64(step)}, nil)
		}
	}
	return false
}

// children lists the pids of this process's children, zombies among them.
func children() (pids []int) {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil
	}
	for _, task := range tasks {
		b, err := os.ReadFile("/proc/self/task/" + task.Name() + "/children")
		if err != nil {
			continue
		}
		for _, word := range bytes.Fields(b) {
			if pid, err := strconv.Atoi(string(word)); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
