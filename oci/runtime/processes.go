package runtime

import (
	"errors"
	"os"
	"strings"
	"time"

	"github.com/criserver/criserver/internal/proc"
	"golang.org/x/sys/unix"
)

const (
	// runtimeExitTimeout limits the wait for a runtime whose exec was canceled, and for the
	// processes of its process group.
	runtimeExitTimeout = 10 * time.Second
	// failedExecTimeout limits the wait for a child that is about to exit or to become the command.
	// On an idle machine that takes a few milliseconds.
	failedExecTimeout = 5 * time.Second
	// maxComm is the length to which the kernel truncates the name of a process, in bytes.
	maxComm = 15
)

// killDescendants kills the descendants of a runtime again and again until the runtime has exited. A
// runtime that has not yet started the command has no descendants; it must not be able to start the
// command afterwards.
func killDescendants(runtime *os.Process) error {
	for end := time.Now().Add(runtimeExitTimeout); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if errors.Is(runtime.Signal(unix.Signal(0)), os.ErrProcessDone) {
			return nil
		}
		if err := killTree(runtime.Pid, false); err != nil {
			return err
		}
	}
	return nil
}

// killGroup kills and reaps the remaining processes of the group of a failed runtime: crun does not
// wait for the child that could not run the command. A zombie would delay the end of the container's
// PID namespace.
func killGroup(group int) {
	for end := time.Now().Add(runtimeExitTimeout); time.Now().Before(end); time.Sleep(time.Millisecond) {
		_ = unix.Kill(-group, unix.SIGKILL) // usually there is no such group
		if _, err := unix.Wait4(-group, nil, unix.WNOHANG, nil); errors.Is(err, unix.ECHILD) {
			return
		}
	}
}

// killTree kills every descendant of pid and all processes that share a session with one of them.
// The session finds processes whose parents have already exited. With self, killTree also kills pid;
// without, pid is a runtime that will reap its child and exit. The processes may fork during the search, so
// killTree repeats until it finds none.
func killTree(pid int, self bool) error {
	callerSession, err := unix.Getsid(0)
	if err != nil {
		return err
	}
	sessions := make(map[int]bool)
	for range 100 {
		processes, err := runningProcesses()
		if err != nil {
			return err
		}
		victims := descendants(processes, pid, self, sessions, callerSession)
		if len(victims) == 0 {
			return nil
		}
		for _, p := range victims {
			_ = p.Signal(unix.SIGKILL) // the process may have exited
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// descendants returns the descendants of pid and the processes of sessions. It first adds the
// sessions of the descendants to sessions, except for the caller's session.
func descendants(processes map[int]proc.Stat, pid int, self bool, sessions map[int]bool, callerSession int) []proc.Stat {
	children := make(map[int][]int)
	for _, p := range processes {
		children[p.Parent] = append(children[p.Parent], p.PID)
	}
	below := make(map[int]bool)
	if _, ok := processes[pid]; ok && self {
		below[pid] = true
	}
	queue := children[pid]
	for len(queue) > 0 {
		next := queue[0]
		queue = append(queue[1:], children[next]...)
		below[next] = true
	}
	for p := range below {
		// A session leader outside of this PID namespace shows as session 0.
		if s := processes[p].Session; s != callerSession && s != 0 {
			sessions[s] = true
		}
	}
	var victims []proc.Stat
	for id, p := range processes {
		if below[id] || sessions[p.Session] && id != pid {
			victims = append(victims, p)
		}
	}
	return victims
}

// runningProcesses returns all processes by pid, except for zombies.
func runningProcesses() (map[int]proc.Stat, error) {
	all, err := proc.All()
	if err != nil {
		return nil, err
	}
	running := make(map[int]proc.Stat, len(all))
	for _, p := range all {
		if !p.Zombie() {
			running[p.PID] = p
		}
	}
	return running, nil
}

// reapFailedExec reaps the process that a runtime has left in a container after a failed exec: crun
// leaves, in a separate session, the child that should have become the command. The child still
// has the name of the runtime. Without reapFailedExec, the container's PID namespace could not end
// until ReapOrphans finds the child. A child that is still running is about to exit, or to become the
// command.
func (r *Runtime) reapFailedExec() {
	for end := time.Now().Add(failedExecTimeout); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		waiting := false
		for _, pid := range proc.Children() {
			if !inChildNamespace(pid) || !hasName(pid, r.base()) {
				continue
			}
			if got, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); got == 0 && err == nil {
				waiting = true
			}
		}
		if !waiting {
			return
		}
	}
}

// inChildNamespace reports whether a process is in a PID namespace below the caller's. Such a process
// has a pid in each of the namespaces.
func inChildNamespace(pid int) bool {
	pids, ok := proc.StatusField(pid, "NSpid")
	return ok && len(strings.Fields(pids)) > 1
}

// hasName reports whether a process has the name of the program.
func hasName(pid int, program string) bool {
	name, ok := proc.StatusField(pid, "Name")
	return ok && name == program[:min(len(program), maxComm)]
}
