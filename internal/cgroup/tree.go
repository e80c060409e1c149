// Package cgroup reads and writes the host's cgroups, of v1 and v2. It makes the cgroups of
// pods and of the monitors, reads stats and limits, lists processes, and kills them. The OCI
// runtime makes the cgroups of containers.
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

// Tree is the cgroup file system of the host. Paths in arguments of its methods are absolute in
// the hierarchy, for example "/kubepods/pod1".
type Tree struct {
	// hierarchies maps a v1 controller, or "" for the v2 hierarchy, to its mount point.
	// Controllers that are mounted together have the same mount point. On a hybrid host, the v2
	// hierarchy beside the v1 hierarchies has the key hybridKey, because OCI runtimes make
	// their cgroups there too.
	hierarchies map[string]string
	roots       []string // the distinct mount points
	v2          bool

	mu   sync.Mutex     // guards refs, and serializes Make and Release
	refs map[string]int // number of users by path
}

const mountRoot = "/sys/fs/cgroup"

// hybridKey is the key of the v2 hierarchy of a hybrid host in Tree.hierarchies.
const hybridKey = "unified"

// maxMountLine is the maximum length of a line of the mount table in bytes. An overlay of
// hundreds of layers has a line of tens of kilobytes.
const maxMountLine = 1 << 20

// Open finds out how cgroups are mounted. A host whose controllers are all or mostly on v1 (a
// hybrid host) counts as v1.
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
	t := &Tree{hierarchies: hierarchies, v2: v2, refs: make(map[string]int)}
	seen := make(map[string]bool)
	for _, dir := range hierarchies {
		if !seen[dir] {
			seen[dir] = true
			t.roots = append(t.roots, dir)
		}
	}
	return t
}

// v1Mounts parses the format of proc_pid_mountinfo(5) and returns the mount points by
// controller. The controllers are among the super block options. A named hierarchy has an
// option such as "name=systemd".
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
			found[hybridKey] = dir
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

// V2 reports whether the controllers are on the unified hierarchy.
func (t *Tree) V2() bool { return t.v2 }

// Dir returns the directory of a path in the hierarchy of a controller, or "" if the controller
// is not mounted. On v2 all controllers are in one hierarchy.
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

// HasController reports whether the controller is available.
func (t *Tree) HasController(name string) bool {
	if !t.v2 {
		return t.hierarchies[name] != ""
	}
	return fileHasWord(filepath.Join(mountRoot, "cgroup.controllers"), name)
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

// ProcessCgroup returns the cgroup of a process. On v1 it returns the cgroup in the hierarchy
// of the memory controller.
func (t *Tree) ProcessCgroup(pid int) (string, error) {
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
