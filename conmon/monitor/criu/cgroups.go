package criu

import (
	"errors"
	"strings"

	"github.com/criserver/criserver/conmon/monitor/sys"
)

// maxTable limits the mount table, in bytes.
const maxTable = 64 << 20

// cgroupPath is the cgroup of a process in one hierarchy.
type cgroupPath struct {
	controllers string // separated by commas; "" for the unified hierarchy
	path        string
}

// cgroupsOf returns the cgroups of a process in all hierarchies.
func cgroupsOf(pid string, b []byte) (list []cgroupPath, err error) {
	text, err := sys.ReadFile("/proc/"+pid+"/cgroup", b)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		_, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, path, ok := strings.Cut(rest, ":")
		if !ok {
			return nil, errors.New("parse /proc/" + pid + "/cgroup: " + strings.TrimSuffix(line, "\n"))
		}
		list = append(list, cgroupPath{controllers, path})
	}
	return list, nil
}

// equalCgroups reports whether two processes are in the same cgroups.
func equalCgroups(a, b []cgroupPath) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// bindCgroups calls bind with the directory of this process and the directory of the runtime for each hierarchy of
// cgroup v1 in a mount table, if the two directories differ. The runtime takes the first mount of each hierarchy.
func bindCgroups(table string, own, runtime []cgroupPath, bind func(source, target string) error) error {
	done := make(map[string]bool)
	for line := range strings.Lines(table) {
		root, point, options := cgroupMount(line)
		if point == "" {
			continue
		}
		for i, c := range own {
			if i >= len(runtime) || runtime[i].controllers != c.controllers || done[c.controllers] || !mounts(options, c.controllers) {
				continue
			}
			source, ok := below(root, c.path)
			target, okRuntime := below(root, runtime[i].path)
			if !ok || !okRuntime {
				continue // a mount of another part of the hierarchy
			}
			done[c.controllers] = true
			if source == target {
				continue
			}
			if err := bind(point+source, point+target); err != nil {
				return sys.Wrap("mount "+point+source+" on "+point+target, err)
			}
		}
	}
	return nil
}

// cgroupMount returns the root, the mount point and the options of the file system of a line of the mount table. The
// mount point is "" if the line is not a hierarchy of cgroup v1.
func cgroupMount(line string) (root, point, options string) {
	mount, fs, _ := strings.Cut(line, " - ")
	kind, device := strings.Fields(mount), strings.Fields(fs)
	if len(kind) < 6 || len(device) < 3 || device[0] != "cgroup" {
		return "", "", ""
	}
	return kind[3], kind[4], device[2]
}

// mounts reports whether the options of a file system name all controllers of a hierarchy.
func mounts(options, controllers string) bool {
	if controllers == "" {
		return false
	}
	for _, c := range strings.Split(controllers, ",") {
		if !strings.Contains(","+options+",", ","+c+",") {
			return false
		}
	}
	return true
}

// below returns the rest of path below root, which begins with a slash or is "".
func below(root, path string) (string, bool) {
	root = strings.TrimSuffix(root, "/")
	rest, ok := strings.CutPrefix(path, root)
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	return strings.TrimSuffix(rest, "/"), true
}
