package monitor

import (
	"bytes"
	"strconv"
)

// memoryCgroup is the file that counts the OOM kills in a container's memory
// cgroup, "" when it is not known. It is read once, when the container has
// ended and before anybody removes the cgroup, so nothing has to be watched.
type memoryCgroup string

const cgroupRoot = "/sys/fs/cgroup"

// memoryCgroupOf returns the cgroup of a process that has not begun to run what
// the container is for, and so cannot have moved.
func memoryCgroupOf(pid int, buf []byte) memoryCgroup {
	b, err := readFile("/proc/"+strconv.Itoa(pid)+"/cgroup", buf)
	if err != nil {
		return ""
	}
	return memoryCgroupIn(b)
}

// memoryCgroupIn reads the content of /proc/<pid>/cgroup, whose lines are
// "hierarchy:controllers:path". Where cgroup v1 has the memory controller, the
// hierarchy of v2 has none.
func memoryCgroupIn(b []byte) memoryCgroup {
	var v1, v2 []byte
	for len(b) > 0 {
		line, rest, _ := bytes.Cut(b, []byte("\n"))
		b = rest
		hierarchy, line, _ := bytes.Cut(line, []byte(":"))
		controllers, path, _ := bytes.Cut(line, []byte(":"))
		switch {
		case string(hierarchy) == "0" && len(controllers) == 0:
			v2 = path
		case hasWord(controllers, "memory"):
			v1 = path
		}
	}
	switch {
	case len(v1) > 0:
		return memoryCgroup(cgroupRoot + "/memory" + string(v1) + "/memory.oom_control")
	case len(v2) > 0:
		return memoryCgroup(cgroupRoot + string(v2) + "/memory.events")
	}
	return ""
}

// hasWord says whether a list with commas has the word.
func hasWord(list []byte, word string) bool {
	for len(list) > 0 {
		first, rest, _ := bytes.Cut(list, []byte(","))
		if string(first) == word {
			return true
		}
		list = rest
	}
	return false
}

// oomKilled says whether the kernel has killed for want of memory there. Both
// versions' files have a line "oom_kill <count>" (v1 since Linux 4.13).
func (c memoryCgroup) oomKilled(buf []byte) bool {
	if c == "" {
		return false
	}
	b, err := readFile(string(c), buf)
	if err != nil {
		return false
	}
	for line := range bytes.Lines(b) {
		if count, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("oom_kill ")); ok {
			return string(count) != "0"
		}
	}
	return false
}
