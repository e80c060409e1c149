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
func memoryCgroupOf(pid int) memoryCgroup {
	b, err := readFile("/proc/"+strconv.Itoa(pid)+"/cgroup", 64<<10)
	if err != nil {
		return ""
	}
	return memoryCgroupIn(b)
}

// memoryCgroupIn reads the content of /proc/<pid>/cgroup, whose lines are
// "hierarchy:controllers:path". A memory controller of cgroup v1 comes before
// the hierarchy of v2, which then has none.
func memoryCgroupIn(b []byte) (found memoryCgroup) {
	for line := range bytes.Lines(b) {
		parts := bytes.SplitN(bytes.TrimSuffix(line, []byte("\n")), []byte(":"), 3)
		if len(parts) < 3 {
			continue
		}
		if string(parts[0]) == "0" && len(parts[1]) == 0 {
			found = memoryCgroup(cgroupRoot + string(parts[2]) + "/memory.events")
		}
		for controller := range bytes.SplitSeq(parts[1], []byte(",")) {
			if string(controller) == "memory" {
				return memoryCgroup(cgroupRoot + "/memory" + string(parts[2]) + "/memory.oom_control")
			}
		}
	}
	return found
}

// oomKilled says whether the kernel has killed for want of memory there. Both
// versions' files have a line "oom_kill <count>" (v1 since Linux 4.13).
func (c memoryCgroup) oomKilled() bool {
	if c == "" {
		return false
	}
	b, err := readFile(string(c), 4096)
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
