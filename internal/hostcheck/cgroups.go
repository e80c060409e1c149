package hostcheck

import (
	"slices"
	"strings"
)

// cgroupMounts returns the types of the cgroup file systems at /sys/fs/cgroup and below.
func (c *checker) cgroupMounts() (unified, legacy bool) {
	mounts, _ := c.host.read("/proc/self/mountinfo")
	for line := range strings.Lines(mounts) {
		fields, rest, found := strings.Cut(line, " - ")
		mount := strings.Fields(fields)
		if !found || len(mount) < 5 {
			continue
		}
		fsType, _, _ := strings.Cut(rest, " ")
		switch {
		case fsType == "cgroup2" && mount[4] == "/sys/fs/cgroup":
			unified = true
		case fsType == "cgroup":
			legacy = true
		}
	}
	return unified, legacy
}

func checkCgroupMode(c *checker) {
	unified, legacy := c.cgroupMounts()
	switch {
	case unified:
	case legacy:
		c.report("cgroups.v1", "the host has the cgroup hierarchies of version 1")
		if c.SystemdCgroups {
			c.report("cgroups.driver", "cgroup_driver is systemd, but the host does not have the unified cgroup hierarchy")
		}
	default:
		c.report("cgroups.missing", "no cgroup hierarchy is mounted at /sys/fs/cgroup")
	}
}

// checkControllers checks the controllers of the unified hierarchy, and those that are delegated
// to the children of the root cgroup.
func checkControllers(c *checker) {
	if unified, _ := c.cgroupMounts(); !unified {
		return
	}
	text, _ := c.host.read("/sys/fs/cgroup/cgroup.controllers")
	available := strings.Fields(text)
	for _, name := range []string{"cpu", "memory", "pids"} {
		if !slices.Contains(available, name) {
			c.report("cgroups.controllers", "the kernel has no cgroup controller %s", name)
		}
	}
	for _, name := range []string{"cpuset", "io", "hugetlb"} {
		if !slices.Contains(available, name) {
			c.report("cgroups.optional_controllers", "the kernel has no cgroup controller %s", name)
		}
	}
}
