// Package oomscore reads and changes the oom_score_adj of processes.
package oomscore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func file(pid int) string { return "/proc/" + strconv.Itoa(pid) + "/oom_score_adj" }

// Get returns the oom_score_adj of a process. It returns ErrFailedPrecondition if the process has exited.
func Get(pid int) (int, error) {
	b, err := os.ReadFile(file(pid))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH):
		return 0, fmt.Errorf("oom_score_adj: the process has exited: %w", errdefs.ErrFailedPrecondition)
	case err != nil:
		return 0, fmt.Errorf("oom_score_adj: %w", err)
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// passes limits the number of searches for processes that were forked during the
// previous search.
const passes = 5

// Set changes the oom_score_adj of a process.
func Set(pid, adj int) error { return os.WriteFile(file(pid), []byte(strconv.Itoa(adj)), 0) }

// SetInherited changes the oom_score_adj of the first process of a container, and of the processes
// with the same value, because they have inherited it. A process that the container itself has given
// another value keeps that value. pids returns the processes of the container. The error is
// ErrFailedPrecondition if the first process has exited.
func SetInherited(first int, pids func() ([]int, error), adj int) error {
	from, err := Get(first)
	if err != nil {
		return err
	}
	for range passes {
		changed, err := change(pids, from, adj)
		if err != nil || !changed {
			return err
		}
	}
	return nil
}

// change makes one pass over the processes, and reports whether it changed a process.
func change(list func() ([]int, error), from, to int) (changed bool, err error) {
	pids, err := list()
	if err != nil || from == to {
		return false, err
	}
	open := make(map[int]*os.File)
	defer func() {
		for _, f := range open {
			_ = f.Close()
		}
	}()
	for _, pid := range pids {
		if f, err := os.OpenFile(file(pid), os.O_RDWR, 0); err == nil {
			open[pid] = f
		}
	}
	// An open file refers to the same process even if the pid is reused. A process that is
	// still in the list now is a process of the container.
	if pids, err = list(); err != nil {
		return false, err
	}
	for pid, f := range open {
		if !slices.Contains(pids, pid) {
			continue
		}
		replaced, err := replace(f, from, to)
		if err != nil {
			return changed, fmt.Errorf("oom_score_adj of process %d: %w", pid, err)
		}
		changed = changed || replaced
	}
	return changed, nil
}

// replace does nothing if the value is not from, or the process has exited.
func replace(f *os.File, from, to int) (bool, error) {
	b := make([]byte, 16)
	n, _ := f.ReadAt(b, 0)
	if now, parseErr := strconv.Atoi(strings.TrimSpace(string(b[:n]))); parseErr != nil || now != from {
		return false, nil
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(to)), 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
