package criu

import (
	"slices"
	"testing"
)

// TestBindCgroups checks which directories are mounted on which for the mount table of a host.
func TestBindCgroups(t *testing.T) {
	table := `31 23 0:28 / /sys/fs/cgroup rw shared:1 - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:2 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/cpuset rw shared:3 - cgroup cgroup rw,cpuset
34 31 0:31 /docker/a /sys/fs/cgroup/memory rw shared:4 - cgroup cgroup rw,memory
35 31 0:31 / /mnt/memory rw - cgroup cgroup rw,memory
36 31 0:37 / /sys/fs/cgroup/systemd rw shared:5 - cgroup cgroup rw,xattr,name=systemd
37 31 0:38 / /sys/fs/cgroup/other rw shared:6 - cgroup cgroup rw,name=other
38 31 0:39 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
39 23 0:29 / /elsewhere/cpu rw shared:2 - cgroup cgroup rw,cpu,cpuacct
`
	cgroups := func(name string) []cgroupPath {
		return []cgroupPath{
			{"cpu,cpuacct", "/pod/" + name},
			{"cpuset", "/pod/" + name},
			{"memory", "/docker/a/pod/" + name},
			{"name=systemd", "/pod/" + name},
			{"name=other", "/"},
			{"pids", "/pod/" + name},
			{"", "/pod/" + name},
		}
	}
	var got []string
	err := bindCgroups(table, cgroups("container"), cgroups("monitor"), func(source, target string) error {
		got = append(got, source+" "+target)
		return nil
	})
	want := []string{
		"/sys/fs/cgroup/cpu,cpuacct/pod/container /sys/fs/cgroup/cpu,cpuacct/pod/monitor",
		"/sys/fs/cgroup/cpuset/pod/container /sys/fs/cgroup/cpuset/pod/monitor",
		"/sys/fs/cgroup/memory/pod/container /sys/fs/cgroup/memory/pod/monitor",
		"/sys/fs/cgroup/systemd/pod/container /sys/fs/cgroup/systemd/pod/monitor",
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	if equalCgroups(cgroups("a"), cgroups("b")) || !equalCgroups(cgroups("a"), cgroups("a")) {
		t.Error("equalCgroups does not compare the paths")
	}
}
