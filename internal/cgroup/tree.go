// Package cgroup reads and writes the host's control groups, v1 and v2 alike:
// the parents of pods, the home of the monitors, kill, processes and figures.
// The cgroups of the containers themselves belong to the OCI runtime.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Tree is the host's cgroup file system. Paths given to its methods are
// absolute in the hierarchy, as in "/kubepods/pod1".
type Tree struct {
	// hierarchies maps a v1 controller, or "" for the unified v2 hierarchy, to
	// its mount point. Co-mounted controllers share one. On a hybrid machine the
	// v2 hierarchy beside the v1 ones is under the key hybrid, as OCI runtimes
	// make their cgroups there too.
	hierarchies map[string]string
	roots       []string // the distinct mount points
	v2          bool

	mu   sync.Mutex     // guards held, and makes Make and Release exclude each other
	held map[string]int // users of each path
}

const mountRoot = "/sys/fs/cgroup"

const hybrid = "unified"

// maxMountLine bounds a line of the mount table: an overlay of hundreds of layers
// has tens of kilobytes.
const maxMountLine = 1 << 20

// Open finds out how cgroups are mounted. A machine whose controllers are on
// v1, wholly or but for a few ("hybrid"), counts as v1.
func Open() (*Tree, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(mountRoot, &st); err != nil {
		return nil, fmt.Errorf("cgroups: %s: %w", mountRoot, err)
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		return newTree(true, map[string]string{"": mountRoot}), nil
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxMountLine)
	found := v1Mounts(lines)
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("cgroups: read the mounts: %w", err)
	}
	if found["memory"] == "" || found["cpu"] == "" {
		return nil, errors.New("cgroups: neither the unified hierarchy nor the v1 controllers cpu and memory are mounted")
	}
	return newTree(false, found), nil
}

func newTree(v2 bool, hierarchies map[string]string) *Tree {
	t := &Tree{hierarchies: hierarchies, v2: v2, held: make(map[string]int)}
	seen := make(map[string]bool)
	for _, dir := range hierarchies {
		if !seen[dir] {
			seen[dir] = true
			t.roots = append(t.roots, dir)
		}
	}
	return t
}

// v1Mounts reads proc_pid_mountinfo(5). The controllers stand among the super
// block options; named hierarchies such as systemd's as "name=systemd".
func v1Mounts(sc *bufio.Scanner) map[string]string {
	found := make(map[string]string)
	for sc.Scan() {
		before, after, ok := strings.Cut(sc.Text(), " - ")
		fields, super := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(super) < 3 || filepath.Dir(fields[4]) != mountRoot {
			continue
		}
		dir := fields[4]
		if super[0] == "cgroup2" {
			found[hybrid] = dir
		}
		if super[0] != "cgroup" {
			continue
		}
		for _, opt := range strings.Split(super[2], ",") {
			switch opt {
			case "rw", "ro", "xattr", "noprefix", "clone_children":
			default:
				found[opt] = dir
			}
		}
	}
	return found
}

// V2 says whether the controllers are on the unified hierarchy.
func (t *Tree) V2() bool { return t.v2 }

// Dir returns the directory of path for a controller, or "" when that
// controller is not mounted. On v2 every controller is in the one hierarchy.
func (t *Tree) Dir(controller, p string) string {
	if t.v2 {
		controller = ""
	}
	root, ok := t.hierarchies[controller]
	if !ok {
		return ""
	}
	return filepath.Join(root, p)
}

// HasController says whether limits of the controller can be set at all.
func (t *Tree) HasController(name string) bool {
	if !t.v2 {
		return t.hierarchies[name] != ""
	}
	b, err := os.ReadFile(filepath.Join(mountRoot, "cgroup.controllers"))
	return err == nil && slices.Contains(strings.Fields(string(b)), name)
}

// UnitOf returns the cgroup of the systemd unit that the cgroup path p belongs
// to: p up to and including its last component that names a service or a scope.
// p can be below that cgroup, as a unit may delegate a subgroup to its processes
// (DelegateSubgroup=). UnitOf returns "" when p is in no unit.
func UnitOf(p string) string {
	for ; p != "/" && p != "." && p != ""; p = path.Dir(p) {
		if strings.HasSuffix(p, ".service") || strings.HasSuffix(p, ".scope") {
			return p
		}
	}
	return ""
}

// Of returns the cgroup of a process. On v1 that is the cgroup of the memory
// controller.
func (t *Tree) Of(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	want := "memory"
	if t.v2 {
		want = ""
	}
	for line := range strings.Lines(string(b)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) == 3 && slices.Contains(strings.Split(parts[1], ","), want) {
			return parts[2], nil
		}
	}
	return "", fmt.Errorf("cgroup of pid %d: the %q hierarchy is not listed", pid, want)
}
