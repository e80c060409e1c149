package hostcheck

// minimums are the least values of sysctls. A sysctl that does not exist is not checked, because
// the kernel then has no such limit or has not loaded its module.
var minimums = []struct {
	id, name string
	min      int64
}{
	{"sysctls.inotify", "fs.inotify.max_user_instances", 256},
	{"sysctls.inotify", "fs.inotify.max_user_watches", 65536},
	{"sysctls.pids", "kernel.pid_max", 65536},
	{"sysctls.pids", "kernel.threads-max", 32768},
	{"sysctls.files", "fs.nr_open", 524288},
	{"sysctls.files", "fs.file-max", 262144},
	{"sysctls.keys", "kernel.keys.root_maxkeys", 10000},
	{"sysctls.namespaces", "user.max_net_namespaces", 1000},
	{"sysctls.namespaces", "user.max_ipc_namespaces", 1000},
	{"sysctls.namespaces", "user.max_uts_namespaces", 1000},
	{"sysctls.namespaces", "user.max_pid_namespaces", 1000},
	{"sysctls.namespaces", "user.max_mnt_namespaces", 1000},
	{"sysctls.namespaces", "user.max_cgroup_namespaces", 1000},
	{"sysctls.user_namespaces", "user.max_user_namespaces", 1000},
	{"sysctls.conntrack", "net.netfilter.nf_conntrack_max", 65536},
	{"sysctls.maps", "vm.max_map_count", 65530},
}

func checkSysctls(c *checker) {
	for _, s := range minimums {
		if value, ok := c.host.sysctl(s.name); ok && value < s.min {
			c.report(s.id, "%s is %d, less than %d", s.name, value, s.min)
		}
	}
}
