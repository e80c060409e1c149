package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/criserver/criserver/internal/proc"
	"golang.org/x/sys/unix"
)

// Pids returns the processes in the cgroup and below it, without duplicates. It returns none
// for a cgroup that does not exist.
func (t *Tree) Pids(p string) ([]int, error) {
	top := t.procsDir(p)
	var pids []int
	threaded := false
	err := filepath.WalkDir(top, func(dir string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.IsDir() {
			return err
		}
		found, err := readPids(filepath.Join(dir, "cgroup.procs"))
		if errors.Is(err, unix.EOPNOTSUPP) {
			// The cgroup is threaded. The kernel lists its processes in the nearest
			// cgroup above that is not threaded, which may be above top.
			threaded = true
			found, err = processesOfThreads(dir)
		}
		pids = append(pids, found...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("processes of cgroup %s: %w", p, err)
	}
	if threaded {
		slices.Sort(pids)
		pids = slices.Compact(pids)
	}
	return pids, nil
}

// readPids reads a file that lists processes or threads. It returns none for a file that does
// not exist.
func readPids(file string) ([]int, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pids []int
	for f := range strings.FieldsSeq(string(b)) {
		// The kernel shows 0 for a process of another PID namespace.
		if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// processesOfThreads returns the processes of the threads in a cgroup.
func processesOfThreads(dir string) ([]int, error) {
	tids, err := readPids(filepath.Join(dir, "cgroup.threads"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, tid := range tids {
		if pid, ok := threadGroup(tid); ok && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// threadGroup returns the process that a thread belongs to, or false for a thread
// that has ended.
func threadGroup(tid int) (int, bool) {
	value, ok := proc.StatusField(tid, "Tgid")
	if !ok {
		return 0, false
	}
	pid, err := strconv.Atoi(value)
	return pid, err == nil && pid > 0
}

// procsDir returns the directory whose files list the processes of p. On v1 the
// directory is in the hierarchy of the freezer controller, because Kill freezes the cgroup.
func (t *Tree) procsDir(p string) string {
	for _, c := range []string{"freezer", "pids", "memory"} {
		if dir := t.Dir(c, p); dir != "" {
			return dir
		}
	}
	return ""
}

// Kill sends SIGKILL to every process in the cgroup and below it. It returns when no process is
// left, or when ctx ends. It is no error if the cgroup does not exist.
func (t *Tree) Kill(ctx context.Context, p string) error {
	if err := CheckPath(p); err != nil {
		return err
	}
	for {
		pids, err := t.Pids(p)
		if err != nil || len(pids) == 0 {
			return err
		}
		if slices.Contains(pids, os.Getpid()) {
			// Killing would freeze this process, which could then not go on.
			return fmt.Errorf("kill cgroup %s: this process is in the cgroup", p)
		}
		if err := t.killOnce(p, pids); err != nil {
			return fmt.Errorf("kill cgroup %s: %w", p, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kill cgroup %s: %d processes are left: %w", p, len(pids), context.Cause(ctx))
		case <-time.After(time.Millisecond):
		}
	}
}

func (t *Tree) killOnce(p string, pids []int) error {
	if t.v2 {
		err := write(filepath.Join(t.Dir("", p), "cgroup.kill"), "1")
		if err == nil || errors.Is(err, unix.ENODEV) {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
		// The kernel is older than Linux 5.14, the cgroup does not exist, or the cgroup is
		// threaded. Kill the processes one by one.
	}
	// Frozen processes cannot fork while the list is read and killed.
	t.freeze(p, "FROZEN")
	defer t.freeze(p, "THAWED")
	if fresh, err := t.Pids(p); err == nil {
		pids = fresh
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// freeze sets the freezer state of the cgroup, FROZEN or THAWED.
func (t *Tree) freeze(p, state string) {
	if t.v2 {
		value := map[string]string{"FROZEN": "1", "THAWED": "0"}[state]
		_ = write(filepath.Join(t.Dir("", p), "cgroup.freeze"), value)
		return
	}
	if dir := t.Dir("freezer", p); dir != "" {
		_ = write(filepath.Join(dir, "freezer.state"), state)
	}
}

// Add moves a process with all its threads into a cgroup that exists.
func (t *Tree) Add(p string, pid int) error {
	for _, root := range t.roots {
		if err := write(filepath.Join(root, p, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("move pid %d to cgroup %s: %w", pid, p, err)
		}
	}
	return nil
}

// Remove removes the cgroup and all cgroups below it in every hierarchy, for instance cgroups
// that a killed OCI runtime has left behind. They must contain no process. It is no error if
// the cgroup does not exist.
func (t *Tree) Remove(p string) error {
	if err := CheckPath(p); err != nil {
		return err
	}
	var errs []error
	for _, root := range t.roots {
		errs = append(errs, removeDirs(filepath.Join(root, p)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove cgroup %s: %w", p, err)
	}
	return nil
}

// removeDirs removes a directory after the directories below it. Usually the directory does not
// exist.
func removeDirs(dir string) error {
	err := unix.Rmdir(dir)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	entries, readErr := os.ReadDir(dir)
	if readErr != nil {
		return readErr
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeDirs(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}
