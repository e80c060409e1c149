package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/criserver/criserver/test/harness"
)

const (
	cgroupMount = "/sys/fs/cgroup"
	cgroupTop   = "criserver-cluster" // parent of the cgroups of all clusters
)

// hierarchies returns the mount points of the cgroup hierarchies: the hierarchies of all controllers of
// cgroup v1, or the single one of cgroup v2. The hierarchy of cgroup v2 next to controllers of v1 is not
// among them.
func hierarchies() ([]string, error) {
	if harness.Unified() {
		return []string{cgroupMount}, nil
	}
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var found []string
	for line := range strings.Lines(string(info)) {
		mount, super, ok := strings.Cut(line, " - ")
		if f := strings.Fields(mount); ok && len(f) > 4 && strings.HasPrefix(super, "cgroup ") {
			found = append(found, f[4])
		}
	}
	if len(found) == 0 {
		return nil, errors.New("no cgroup hierarchy is mounted")
	}
	return found, nil
}

// makeCgroup creates a cgroup in each hierarchy, with its parents, and returns its directories. Children of the cgroup
// can have all controllers.
func makeCgroup(path string) ([]string, error) {
	mounts, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, mount := range mounts {
		dir := mount
		for _, name := range strings.Split(strings.Trim(path, "/"), "/") {
			if err := prepareChildren(dir); err != nil {
				return nil, err
			}
			parent := dir
			dir = filepath.Join(parent, name)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, err
			}
			if err := copyCpuset(parent, dir); err != nil {
				return nil, err
			}
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// prepareChildren enables all controllers of cgroup v2 for the children of a cgroup.
func prepareChildren(dir string) error {
	has, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // cgroup v1
	}
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(has)) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0o644); err != nil {
			return fmt.Errorf("enable controller %s: %w", controller, err)
		}
	}
	return nil
}

// copyCpuset copies the CPUs and memory nodes of the parent to a new cgroup of cgroup v1, which has none and could have
// no process.
func copyCpuset(parent, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "cgroup.controllers")); err == nil {
		return nil // cgroup v2
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		if has, err := os.ReadFile(filepath.Join(dir, file)); err != nil || len(strings.TrimSpace(string(has))) > 0 {
			continue // another controller, or set
		}
		value, err := os.ReadFile(filepath.Join(parent, file))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, file), value, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// findCgroups returns the directories of a cgroup and its descendants in all hierarchies, the deepest first.
func findCgroups(path string) ([]string, error) {
	mounts, err := filepath.Glob(filepath.Join(cgroupMount, "*"))
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, mount := range append(mounts, cgroupMount) {
		err := filepath.WalkDir(filepath.Join(mount, path), func(dir string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, dir)
			}
			return nil // cgroups may disappear during the walk
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(dirs)
	dirs = slices.Compact(dirs)
	slices.Reverse(dirs)
	return dirs, nil
}

// removeCgroups removes a cgroup and its descendants. Their processes have been killed; the kernel may still need some
// time to remove them.
func removeCgroups(path string) error {
	for end := time.Now().Add(harness.Patience(10 * time.Second)); ; time.Sleep(50 * time.Millisecond) {
		dirs, err := findCgroups(path)
		if err != nil || len(dirs) == 0 {
			return err
		}
		var errs []error
		for _, dir := range dirs {
			if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
		if len(errs) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("remove cgroups: %w", errors.Join(errs...))
		}
	}
}
