// Package cgrouptest removes cgroups that killed tests have left behind.
package cgrouptest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// names matches the names of cgroups that tests make. They contain the pid of the test binary.
var names = regexp.MustCompile(`^criserver-test-(?:[a-z]+-)*([0-9]+)(?:-[0-9]+)?$`)

// Sweep removes the cgroups of test binaries that no longer run. A test that is killed, or
// whose binary reaches its deadline, does not remove its cgroups. Cgroups with processes stay.
func Sweep() error {
	var errs []error
	for _, pattern := range []string{"/sys/fs/cgroup/criserver-test-*", "/sys/fs/cgroup/*/criserver-test-*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, dir := range found {
			if abandoned(filepath.Base(dir)) {
				errs = append(errs, remove(dir))
			}
		}
	}
	return errors.Join(errs...)
}

// abandoned reports whether the test binary that has made the cgroup with this name no longer runs.
func abandoned(name string) bool {
	m := names.FindStringSubmatch(name)
	if m == nil {
		return false
	}
	pid, err := strconv.Atoi(m[1])
	return err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

// remove removes a cgroup and all cgroups below it, the deepest first.
func remove(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	errs := []error{err}
	for _, d := range slices.Backward(dirs) {
		errs = append(errs, unix.Rmdir(d))
	}
	for i, err := range errs {
		// Another test may remove the same cgroup, and a hierarchy can have two names.
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.EBUSY) {
			errs[i] = nil
		}
	}
	return errors.Join(errs...)
}
