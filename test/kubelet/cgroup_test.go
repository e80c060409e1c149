package kubelet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const cgroupMount = "/sys/fs/cgroup"

// hierarchies returns the mount point of each controller, on v1; none on v2.
func hierarchies() (map[string]string, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for line := range strings.Lines(string(info)) {
		// id parent dev root mountpoint options … - type source super-options
		mount, super, ok := strings.Cut(line, " - ")
		f, s := strings.Fields(mount), strings.Fields(super)
		if !ok || len(f) < 5 || len(s) < 3 || s[0] != "cgroup" {
			continue
		}
		for _, option := range strings.Split(s[2], ",") {
			if option != "rw" {
				found[option] = f[4]
			}
		}
	}
	return found, nil
}

// makeCgroupRoot makes the cgroup below which the kubelet keeps its pods: it
// demands that this is there, with every controller, when it starts.
func makeCgroupRoot(name string) error {
	mounts, err := hierarchies()
	if err != nil {
		return err
	}
	if len(mounts) == 0 {
		return makeUnifiedRoot(name)
	}
	for controller, mount := range mounts {
		dir := filepath.Join(mount, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if controller != "cpuset" {
			continue
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			value, err := os.ReadFile(filepath.Join(mount, file))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, file), value, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// makeUnifiedRoot is makeCgroupRoot on v2: the controllers of the top must have
// been handed down.
func makeUnifiedRoot(name string) error {
	has, err := os.ReadFile(filepath.Join(cgroupMount, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(has)) {
		if err := os.WriteFile(filepath.Join(cgroupMount, "cgroup.subtree_control"), []byte("+"+controller), 0o644); err != nil {
			return fmt.Errorf("hand down controller %s: %w", controller, err)
		}
	}
	return os.MkdirAll(filepath.Join(cgroupMount, name), 0o755)
}

// cgroupDirs lists the cgroups at and below name, the deepest first, in every hierarchy.
func cgroupDirs(name string) []string {
	var dirs []string
	_ = filepath.WalkDir(cgroupMount, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(path+"/", name+"/") {
			dirs = append(dirs, path)
		}
		return nil // other people's cgroups come and go
	})
	slices.Sort(dirs)
	slices.Reverse(dirs)
	return dirs
}

// removeCgroupRoot removes what the kubelet made for itself. A cgroup with
// anybody in it cannot be removed, which is an error.
func removeCgroupRoot(name string) error {
	var errs []error
	for _, dir := range cgroupDirs(name) {
		errs = append(errs, os.Remove(dir))
	}
	return errors.Join(errs...)
}

// cgroupFile reads a file of the cgroup of a process: the one of v1 in its
// controller's hierarchy, or the one of v2.
func cgroupFile(pid int, controller, v1, v2 string) (string, error) {
	mounts, err := hierarchies()
	if err != nil {
		return "", err
	}
	lines, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	mount, file := mounts[controller], v1
	if mount == "" {
		controller, mount, file = "", cgroupMount, v2
	}
	for line := range strings.Lines(string(lines)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && slices.Contains(strings.Split(f[1], ","), controller) {
			b, err := os.ReadFile(filepath.Join(mount, f[2], file))
			return strings.TrimSpace(string(b)), err
		}
	}
	return "", fmt.Errorf("process %d has no cgroup of controller %q", pid, controller)
}
