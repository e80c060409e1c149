package oci

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxComm = 15 // what the kernel keeps of a process's name, in bytes
	// buryFor bounds the wait for a child that is about to end or to become the
	// command, which takes a few milliseconds on an idle machine.
	buryFor   = 5 * time.Second
	buryPause = 2 * time.Millisecond
)

// buryFailed reaps what a runtime has left in a container when it could not run
// a command there: crun leaves, in a session of its own, the child that was to
// become the command. It is known by having the runtime's name still. Unburied
// it would hold up the end of the container's PID namespace until ReapOrphans
// comes by. What lives on is about to become a command, or to end.
func (r *Runtime) buryFailed() {
	for end := time.Now().Add(buryFor); time.Now().Before(end); time.Sleep(buryPause) {
		waiting := false
		for _, pid := range children() {
			if !inContainer(pid) || !named(pid, r.base()) {
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

// inContainer says whether a process is in a PID namespace below this one's.
func inContainer(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	for line := range bytes.Lines(b) {
		if pids, ok := bytes.CutPrefix(line, []byte("NSpid:")); ok {
			return len(bytes.Fields(pids)) > 1
		}
	}
	return false
}

// named says whether a process still has the name of the program.
func named(pid int, program string) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	return err == nil && string(bytes.TrimSpace(b)) == program[:min(len(program), maxComm)]
}
