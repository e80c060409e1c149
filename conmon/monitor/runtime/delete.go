package runtime

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/conmon/wire"
)

// deleteTimeout and orphanTimeout limit the two steps of Delete.
const (
	deleteTimeout = 60 * time.Second
	orphanTimeout = 15 * time.Second
)

// Delete deletes the container in the runtime and kills all children. It ignores the error
// of the runtime, which usually says that there is no such container.
func Delete(spec *wire.Spec) {
	args := Args(spec, "delete", "--force", spec.ID)
	if c, err := Start(args, spec, [3]int{-1, -1, -1}); err == nil {
		// The runtime may wait until the container's processes have disappeared. That requires
		// that their parent, the monitor, reaps them.
		ended := reapUntil(deleteTimeout, func(pid int) bool { return pid == c.PID })
		if !ended {
			c.Kill()
		}
		c.Close()
	}
	KillOrphans()
}

// KillOrphans kills all children. They are processes that a killed runtime has left behind,
// such as a first process that is not complete.
func KillOrphans() {
	reapUntil(orphanTimeout, func(int) bool {
		for _, pid := range children() {
			_ = unix.Kill(pid, unix.SIGKILL) // the pid cannot be reused before the wait
		}
		return false
	})
}

// reapUntil reaps children until done returns true for the pid of one. It returns false if
// there are no more children, or after limit. It also calls done(0) repeatedly while it waits.
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

// children returns the pids of this process's children, including zombies. It corresponds to
// proc.Children, which the monitor does not use because package proc imports fmt.
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
