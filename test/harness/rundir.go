package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lockName is the name of a file in the directory of a run. The process of the run has a lock on the file.
const lockName = "run.lock"

// MakeRunDir makes a directory for a run, whose name is prefix and a number. The directory, and the cgroups that are
// named after it, belong to the run until the caller closes lock or exits.
func MakeRunDir(prefix string) (dir string, lock *os.File, err error) {
	for {
		if dir, err = os.MkdirTemp("", prefix); err != nil {
			return "", nil, err
		}
		lock, err = os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR|os.O_EXCL, 0o600)
		if err != nil {
			return "", nil, errors.Join(err, os.RemoveAll(dir))
		}
		locked, err := tryLock(lock)
		if locked {
			return dir, lock, nil
		}
		// RemoveDeadRuns of another process was faster, and removes the directory.
		if err := errors.Join(err, lock.Close()); err != nil {
			return "", nil, err
		}
	}
}

// tryLock locks the file of a run. It reports false if another process has the lock or has removed the file.
func tryLock(lock *os.File) (bool, error) {
	err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	opened, err := lock.Stat()
	if err != nil {
		return false, err
	}
	now, err := os.Stat(lock.Name())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(opened, now), err
}

// RemoveDeadRuns removes the directories and cgroups of runs whose process was killed, and kills the daemons and
// containers of these runs. The caller must be in the namespaces of the machine, and passes the same
// prefix to MakeRunDir.
func RemoveDeadRuns(prefix string) error {
	locks, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"[0-9]*", lockName))
	if err != nil {
		return err
	}
	for _, path := range locks {
		if err := removeIfDead(path); err != nil {
			return fmt.Errorf("remove the run %s, whose process was killed: %w", filepath.Base(filepath.Dir(path)), err)
		}
	}
	return nil
}

func removeIfDead(path string) error {
	lock, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	if dead, err := tryLock(lock); !dead {
		return err
	}
	dir := filepath.Dir(path)
	cgroups, err := cgroupsOfRun(filepath.Base(dir))
	if err != nil {
		return err
	}
	if err := killRun(dir, cgroups); err != nil {
		return err
	}
	removeCgroups(cgroups)
	return errors.Join(stopSlice(filepath.Base(dir)), os.RemoveAll(dir))
}

// cgroupsOfRun returns the cgroups that are named after a run. The name of another run can begin with the name.
func cgroupsOfRun(name string) (Snapshot, error) {
	found := Snapshot{}
	if err := addCgroups(found, "/"+name); err != nil {
		return nil, err
	}
	exact := regexp.MustCompile("/" + regexp.QuoteMeta(name) + "([^0-9]|$)")
	for what, path := range found {
		if !exact.MatchString(path) {
			delete(found, what)
		}
	}
	return found, nil
}

// killTimeout is how long killRun waits for the end of the processes.
const killTimeout = 10 * time.Second

// killRun kills the processes in the cgroups of a run and the processes that have its directory in HARNESS_DIR: the
// daemons and the programs that they started.
func killRun(dir string, cgroups Snapshot) error {
	for end := time.Now().Add(Patience(killTimeout)); ; time.Sleep(20 * time.Millisecond) {
		pids := processesOfRun(dir, cgroups)
		if len(pids) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("processes %v do not end after SIGKILL", pids)
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("kill process %d: %w", pid, err)
			}
		}
	}
}

func processesOfRun(dir string, cgroups Snapshot) []int {
	var pids []int
	for _, path := range cgroups {
		b, _ := os.ReadFile(filepath.Join(path, "cgroup.procs")) // the cgroup may have disappeared
		for word := range strings.FieldsSeq(string(b)) {
			// The kernel shows 0 for a process of another PID namespace.
			if pid, err := strconv.Atoi(word); err == nil && pid > 1 && pid != os.Getpid() {
				pids = append(pids, pid)
			}
		}
	}
	environments, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environments {
		b, _ := os.ReadFile(path) // the process may have exited; a zombie has no environment
		for value := range strings.SplitSeq(string(b), "\x00") {
			home, ok := strings.CutPrefix(value, dirVariable+"=")
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); ok && err == nil && (home == dir || strings.HasPrefix(home, dir+"/")) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}
