package proc

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// All returns the processes of /proc. It omits processes that exit meanwhile.
func All() ([]Stat, error) {
	pids, err := allPIDs()
	if err != nil {
		return nil, err
	}
	all := make([]Stat, 0, len(pids))
	for _, pid := range pids {
		if s, err := ReadStat(pid); err == nil {
			all = append(all, s)
		}
	}
	return all, nil
}

// Find returns the process whose command line is exactly args. A restarted daemon uses it to find a
// child that the earlier daemon started but did not record. The command line must contain an id, so
// that no other process has the same one.
func Find(args ...string) (Ref, bool) {
	pids, err := allPIDs()
	if err != nil {
		return Ref{}, false
	}
	want := strings.Join(args, "\x00") + "\x00"
	for _, pid := range pids {
		// Identify the process before reading its command line. If the pid is reused in between,
		// the Ref identifies a process that has exited, and never an unrelated process.
		ref, err := Identify(pid)
		if err != nil {
			continue
		}
		line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if err == nil && string(line) == want {
			return ref, true
		}
	}
	return Ref{}, false
}

// allPIDs returns the pids in /proc.
func allPIDs() ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Children returns the pids of the children of this process, including zombies. It returns none on
// a kernel without CONFIG_PROC_CHILDREN.
//
// Package conmon/monitor has its own copy, because the monitor must not import fmt.
func Children() []int {
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return nil
	}
	var pids []int
	for _, list := range lists {
		b, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has exited
		}
		for field := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
