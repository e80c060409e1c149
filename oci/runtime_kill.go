package oci

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"time"

	"github.com/criserver/criserver/internal/proc"
	"golang.org/x/sys/unix"
)

// task is a process as /proc/<pid>/stat tells of it; pids are the daemon's.
type task struct {
	ref           proc.Ref
	ppid, session int
}

// endFor bounds the wait for a runtime whose command was killed.
const endFor = 10 * time.Second

// endTree kills a runtime's descendants until it has ended by itself. One that
// is only about to start the command has none yet, and must not be left to it.
func endTree(runtime *os.Process) error {
	for end := time.Now().Add(endFor); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if errors.Is(runtime.Signal(unix.Signal(0)), os.ErrProcessDone) {
			return nil
		}
		if err := killTree(runtime.Pid, false); err != nil {
			return err
		}
	}
	return nil
}

// endGroup ends and reaps what a runtime that failed has left of its process
// group: crun does not wait for the child that could not run the command. A dead
// process that nobody reaps would hold up the death of the whole PID namespace.
func endGroup(group int) {
	for end := time.Now().Add(endFor); time.Now().Before(end); time.Sleep(time.Millisecond) {
		_ = unix.Kill(-group, unix.SIGKILL) // usually there is none
		if _, err := unix.Wait4(-group, nil, unix.WNOHANG, nil); errors.Is(err, unix.ECHILD) {
			return
		}
	}
}

// killTree kills every descendant of pid, and whoever shares a session with one
// of them: those whose parents have died already are found by that. With self
// it kills pid too; without, pid is a runtime that is to reap its child and end.
// As what is being killed may fork meanwhile, it looks again until nobody is
// found.
func killTree(pid int, self bool) error {
	own, err := unix.Getsid(0)
	if err != nil {
		return err
	}
	sessions := make(map[int]bool)
	for range 100 {
		tasks, err := allTasks()
		if err != nil {
			return err
		}
		victims := descendants(tasks, pid, self, sessions, own)
		if len(victims) == 0 {
			return nil
		}
		for _, t := range victims {
			_ = t.ref.Signal(unix.SIGKILL) // gone is as good
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// descendants adds the sessions that it finds to sessions, but for own, the
// caller's.
func descendants(tasks map[int]task, pid int, self bool, sessions map[int]bool, own int) []task {
	children := make(map[int][]int)
	for _, t := range tasks {
		children[t.ppid] = append(children[t.ppid], t.ref.PID)
	}
	below := make(map[int]bool)
	if _, ok := tasks[pid]; ok && self {
		below[pid] = true
	}
	queue := children[pid]
	for len(queue) > 0 {
		p := queue[0]
		queue = append(queue[1:], children[p]...)
		below[p] = true
	}
	for p := range below {
		// Session 0 is one that began outside of what can be seen from here.
		if s := tasks[p].session; s != own && s != 0 {
			sessions[s] = true
		}
	}
	var victims []task
	for p, t := range tasks {
		if below[p] || sessions[t.session] && p != pid {
			victims = append(victims, t)
		}
	}
	return victims
}

// allTasks leaves out zombies, which are dead already.
func allTasks() (map[int]task, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	tasks := make(map[int]task, len(names))
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if t, ok := readTask(pid); ok {
			tasks[pid] = t
		}
	}
	return tasks, nil
}

func readTask(pid int) (task, bool) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return task{}, false
	}
	// The command name may hold anything, so fields count from the last ')'.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	const state, ppid, session, start = 0, 1, 3, 19
	if len(fields) <= start || fields[state][0] == 'Z' || fields[state][0] == 'X' {
		return task{}, false
	}
	t := task{ref: proc.Ref{PID: pid}}
	t.ppid, _ = strconv.Atoi(string(fields[ppid]))
	t.session, _ = strconv.Atoi(string(fields[session]))
	t.ref.Start, err = strconv.ParseUint(string(fields[start]), 10, 64)
	return t, err == nil
}
