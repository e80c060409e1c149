package kubelet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/criserver/criserver/test/harness"
)

const cgroupMount = "/sys/fs/cgroup"

// hierarchies returns the mount point of each controller on cgroup v1, and nothing on v2.
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

// cgroupRoot is the cgroup below which a kubelet creates the cgroups of its pods.
type cgroupRoot struct {
	driver string
	name   string // without dashes, which separate the levels of slices
}

func newCgroupRoot(name string) cgroupRoot {
	return cgroupRoot{harness.CgroupDriver(), strings.ReplaceAll(name, "-", "")}
}

// config returns the value of cgroupRoot in the kubelet's configuration.
func (r cgroupRoot) config() string { return "/" + r.name }

// parent returns the daemon's cgroup_parent, for pods that the kubelet did not create.
func (r cgroupRoot) parent() string {
	if r.driver == harness.Systemd {
		return r.name + "own.slice"
	}
	return "/" + r.name + "own"
}

// path returns the path of the root within a hierarchy.
func (r cgroupRoot) path() string {
	if r.driver == harness.Systemd {
		return "/" + r.slice()
	}
	return "/" + r.name
}

func (r cgroupRoot) slice() string { return r.name + ".slice" }

// burstable returns the path of the cgroup of a burstable pod.
func (r cgroupRoot) burstable(uid string) string {
	if r.driver != harness.Systemd {
		return r.path() + "/kubepods/burstable/pod" + uid
	}
	top := r.name + "-kubepods"
	return filepath.Join(r.path(), top+".slice", top+"-burstable.slice",
		top+"-burstable-pod"+strings.ReplaceAll(uid, "-", "_")+".slice")
}

// isPod reports whether a directory below the root is the cgroup of a pod.
func (r cgroupRoot) isPod(dir string) bool {
	base := filepath.Base(dir)
	if r.driver == harness.Systemd {
		return strings.HasSuffix(base, ".slice") && strings.Contains(base, "-pod")
	}
	return strings.HasPrefix(base, "pod")
}

// mentions reports whether a text contains the uid of the pod in one of its forms.
func (r cgroupRoot) mentions(text, uid string) bool {
	return strings.Contains(text, uid) || strings.Contains(text, strings.ReplaceAll(uid, "-", "_"))
}

// make creates the root. The kubelet requires at its start that the root exists
// with every controller.
func (r cgroupRoot) make() error {
	mounts, err := hierarchies()
	if err != nil {
		return err
	}
	if r.driver == harness.Systemd {
		if out, err := exec.Command("systemctl", "start", r.slice()).CombinedOutput(); err != nil {
			return fmt.Errorf("start %s: %w: %s", r.slice(), err, out)
		}
		return enableControllers()
	}
	if len(mounts) == 0 {
		return errors.Join(enableControllers(), os.MkdirAll(filepath.Join(cgroupMount, r.path()), 0o755))
	}
	for controller, mount := range mounts {
		dir := filepath.Join(mount, r.path())
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

// enableControllers enables all controllers for the children of the root cgroup
// of cgroup v2.
func enableControllers() error {
	has, err := os.ReadFile(filepath.Join(cgroupMount, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(has)) {
		if err := os.WriteFile(filepath.Join(cgroupMount, "cgroup.subtree_control"), []byte("+"+controller), 0o644); err != nil {
			return fmt.Errorf("enable controller %s: %w", controller, err)
		}
	}
	return nil
}

// dirs returns the cgroups at and below the root in every hierarchy, the deepest first.
func (r cgroupRoot) dirs() []string {
	var dirs []string
	_ = filepath.WalkDir(cgroupMount, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(path+"/", r.path()+"/") {
			dirs = append(dirs, path)
		}
		return nil // cgroups of other programs may disappear during the walk
	})
	slices.Sort(dirs)
	slices.Reverse(dirs)
	return dirs
}

// remove removes the cgroups that the kubelet created. A cgroup with a process is
// an error.
func (r cgroupRoot) remove() error {
	if r.driver == harness.Systemd {
		return r.stop()
	}
	var errs []error
	for _, dir := range r.dirs() {
		errs = append(errs, os.Remove(dir))
	}
	return errors.Join(errs...)
}

// stop stops the slices. It first checks that they have no processes, because
// systemd would kill them.
func (r cgroupRoot) stop() error {
	for _, dir := range r.dirs() {
		if b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")); err == nil && len(b) > 0 {
			return fmt.Errorf("cgroup %s has processes %q", dir, b)
		}
	}
	if out, err := exec.Command("systemctl", "stop", r.slice(), r.name+"own.slice").CombinedOutput(); err != nil {
		return fmt.Errorf("stop %s: %w: %s", r.slice(), err, out)
	}
	if left := r.dirs(); len(left) > 0 {
		return fmt.Errorf("cgroups %v exist after the stop of their slices", left)
	}
	return nil
}

// cgroupFile reads a file of the cgroup of a process: v1 in the hierarchy of the
// controller, or v2 in the unified hierarchy.
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
