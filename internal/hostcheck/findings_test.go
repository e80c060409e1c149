package hostcheck

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestGoodHost(t *testing.T) {
	if got := newBed(t).check(); len(got) != 0 {
		t.Errorf("findings on a good host: %+v", got)
	}
}

const unit = "LoadState=loaded\nKillMode=process\nDelegate=yes\nLimitNOFILE=1048576\nLimitNPROC=infinity\nTasksMax=infinity\n"

// TestFindings checks that each change of a good host has exactly the expected findings.
func TestFindings(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(*bed)
		ids     []string
		problem string // a part of the first problem
	}{
		"old kernel": {func(b *bed) {
			b.kernel.release = "5.10.0-33-amd64"
			b.write("/proc/config.gz", "")
			b.write("/boot/config-5.10.0-33-amd64", "CONFIG_OVERLAY_FS=m\nCONFIG_BRIDGE=y\nCONFIG_VETH=m\nCONFIG_NF_TABLES=y\nCONFIG_NFT_NAT=m\nCONFIG_NFT_MASQ=m\nCONFIG_NF_CONNTRACK=m\nCONFIG_BRIDGE_NETFILTER=m\nCONFIG_VXLAN=m\n")
		}, []string{"kernel.version", "kernel.idmapped_mounts"}, "5.10.0-33-amd64 is older than 5.15"},
		"kernel without mapped tmpfs": {func(b *bed) {
			b.kernel.release = "6.1.0"
			b.write("/lib/modules/6.1.0/modules.dep", "/overlay.ko /bridge.ko /veth.ko /nf_tables.ko /nft_chain_nat.ko /nft_masq.ko /nf_conntrack.ko /br_netfilter.ko /vxlan.ko")
		}, []string{"kernel.idmapped_mounts"}, "tmpfs"},
		"system calls":       {func(b *bed) { b.kernel.missing = []string{"openat2", "close_range"} }, []string{"kernel.syscalls"}, "openat2, close_range"},
		"modules unknown":    {func(b *bed) { b.kernel.release = "6.9.0" }, []string{"kernel.unknown"}, "6.9.0"},
		"no user namespaces": {func(b *bed) { b.remove("/proc/self/ns/user") }, []string{"kernel.user_namespaces"}, ""},
		"missing modules": {func(b *bed) {
			b.write("/lib/modules/6.8.0-40-generic/modules.dep", "kernel/net/bridge/bridge.ko:\nkernel/drivers/net/veth.ko:\n")
		}, []string{"kernel.overlay", "kernel.network", "kernel.network", "kernel.br_netfilter", "kernel.vxlan"}, "overlay"},
		"loaded module": {func(b *bed) {
			b.write("/lib/modules/6.8.0-40-generic/modules.dep", "/overlay.ko /bridge.ko /nft_chain_nat.ko /nft_masq.ko /br_netfilter.ko /vxlan.ko")
			b.write("/sys/module/veth/x", "")
		}, nil, ""},
		"cgroup v1": {func(b *bed) {
			b.write("/proc/self/mountinfo", "30 29 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n")
		}, []string{"cgroups.v1"}, ""},
		"cgroup v1 with the systemd driver": {func(b *bed) {
			b.options.SystemdCgroups = true
			b.write("/proc/self/mountinfo", "30 29 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n")
		}, []string{"cgroups.driver", "cgroups.v1"}, ""},
		"no cgroups":  {func(b *bed) { b.write("/proc/self/mountinfo", "") }, []string{"cgroups.missing"}, ""},
		"controllers": {func(b *bed) { b.write("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu pids io") }, []string{"cgroups.controllers", "cgroups.optional_controllers"}, "memory"},
		"overlay below": {func(b *bed) {
			b.kernel.fs["/var/lib"] = FileSystem{Type: 0x794c7630, Bytes: 100 * gib, FreeBytes: 50 * gib}
		}, []string{"storage.filesystem"}, "/var/lib/criserver is on a file system of the type overlay"},
		"no d_type": {func(b *bed) {
			b.kernel.fs["/var/lib"] = FileSystem{Type: 0x58465342, Bytes: 100 * gib, FreeBytes: 50 * gib, NoTypes: true}
		}, []string{"storage.d_type"}, ""},
		"full": {func(b *bed) {
			b.kernel.fs["/var/lib"] = FileSystem{Type: magicExt4, Bytes: 100 * gib, FreeBytes: 500 * mib}
		}, []string{"storage.full"}, "500 MiB"},
		"little": {func(b *bed) {
			b.kernel.fs["/var/lib"] = FileSystem{Type: magicExt4, Bytes: 100 * gib, FreeBytes: 14 * gib}
		}, []string{"storage.space"}, "14.0 %"},
		"inodes": {func(b *bed) {
			b.kernel.fs["/var/lib"] = FileSystem{Type: magicExt4, Bytes: 100 * gib, FreeBytes: 50 * gib, Inodes: 1000, FreeNodes: 10}
		}, []string{"storage.inodes"}, "1.0 %"},
		"run_dir on a disk": {func(b *bed) {
			b.kernel.fs["/run"] = FileSystem{Type: magicExt4, Bytes: gib, FreeBytes: 10 * mib}
		}, []string{"storage.run_dir", "storage.run_dir_space"}, "not on tmpfs"},
		"unreadable root":    {func(b *bed) { delete(b.kernel.fs, "/var/lib") }, []string{"storage.unreadable", "storage.unreadable"}, "/var/lib cannot be read"},
		"no seccomp":         {func(b *bed) { b.remove("/proc/sys/kernel/seccomp/actions_avail") }, []string{"security.seccomp"}, ""},
		"seccomp actions":    {func(b *bed) { b.write("/proc/sys/kernel/seccomp/actions_avail", "kill_process errno log") }, []string{"security.seccomp_actions"}, "user_notif"},
		"no apparmor_parser": {func(b *bed) { b.write("/sys/module/apparmor/parameters/enabled", "Y\n") }, []string{"security.apparmor_parser"}, ""},
		"missing AppArmor profile": {func(b *bed) {
			b.write("/sys/module/apparmor/parameters/enabled", "Y\n")
			b.write("/sys/kernel/security/apparmor/profiles", "mine-too (enforce)\n")
			b.options.AppArmorProfile, b.options.OwnAppArmorProfile = "mine", false
		}, []string{"security.apparmor_profile"}, "profile mine is not loaded"},
		"loaded AppArmor profile": {func(b *bed) {
			b.write("/sys/module/apparmor/parameters/enabled", "Y\n")
			b.write("/sys/kernel/security/apparmor/profiles", "other (enforce)\nmine (enforce)\n")
			b.options.AppArmorProfile, b.options.OwnAppArmorProfile = "mine", false
		}, nil, ""},
		"SELinux without types": {func(b *bed) {
			b.write("/sys/fs/selinux/enforce", "0")
			b.write("/etc/selinux/config", "SELINUX=permissive\nSELINUXTYPE=default\n")
			b.kernel.label = "system_u:object_r:bin_t:s0"
		}, []string{"security.selinux_permissive", "security.selinux_contexts", "security.selinux_label"}, ""},
		"SELinux": {func(b *bed) {
			b.write("/sys/fs/selinux/enforce", "1")
			b.write("/etc/selinux/targeted/contexts/lxc_contexts", "")
			b.kernel.label = "system_u:object_r:container_engine_exec_t:s0"
		}, nil, ""},
		"SELinux off": {func(b *bed) { b.options.SELinux = false; b.write("/sys/fs/selinux/enforce", "1") }, []string{"security.selinux_off"}, ""},
		"no network":  {func(b *bed) { b.remove("/etc/cni/net.d/10-a.conflist") }, []string{"network.default_bridge"}, ""},
		"no network and no bridge": {func(b *bed) {
			b.remove("/etc/cni/net.d/10-a.conflist")
			b.options.DefaultBridge = false
		}, []string{"network.none"}, "/etc/cni/net.d"},
		"other default network": {func(b *bed) { b.options.DefaultNetwork = "z" }, []string{"network.none"}, `"z"`},
		"invalid network":       {func(b *bed) { b.write("/etc/cni/net.d/20-b.conf", "{") }, []string{"network.invalid"}, ""},
		"only an invalid network": {func(b *bed) {
			b.write("/etc/cni/net.d/10-a.conflist", "{")
		}, []string{"network.none", "network.invalid"}, "no valid CNI network"},
		"other file": {func(b *bed) { b.write("/etc/cni/net.d/README", "{") }, nil, ""},
		"duplicate network": {func(b *bed) {
			b.write("/etc/cni/net.d/20-b.conf", `{"name":"a","plugins":["bridge"]}`)
		}, []string{"network.duplicate"}, "/etc/cni/net.d/10-a.conflist and /etc/cni/net.d/20-b.conf"},
		"missing plugins": {func(b *bed) {
			b.write("/etc/cni/net.d/20-b.conf", `{"name":"b","plugins":["calico","portmap"]}`)
		}, []string{"network.plugin", "network.builtin_plugin"}, "calico"},
		"overlap": {func(b *bed) {
			b.write("/etc/cni/net.d/20-b.conf", `{"name":"b","plugins":["bridge"],"subnets":["10.0.0.0/16"]}`)
		}, []string{"network.overlap"}, "10.0.0.0/24 through eth0"},
		"route of the own bridge": {func(b *bed) {
			b.write("/proc/net/route", "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\ncni0\t0000580A\t00000000\t0001\t0\t0\t0\t0000FFFF\n")
		}, nil, ""},
		"overlap of IPv6": {func(b *bed) {
			b.write("/etc/cni/net.d/20-b.conf", `{"name":"b","plugins":["bridge"],"subnets":["fd00:88::/64"]}`)
			b.write("/proc/net/ipv6_route", "fd000088000000000000000000000000 20 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth1\n"+
				"fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth1\n")
		}, []string{"network.overlap"}, "fd00:88::/32 through eth1"},
		"no forwarding":    {func(b *bed) { b.write("/proc/sys/net/ipv4/ip_forward", "0\n") }, []string{"network.ip_forward"}, ""},
		"no br_netfilter":  {func(b *bed) { b.remove("/proc/sys/net/bridge/bridge-nf-call-iptables") }, []string{"network.bridge_nf"}, ""},
		"strict rp_filter": {func(b *bed) { b.write("/proc/sys/net/ipv4/conf/all/rp_filter", "1") }, []string{"network.rp_filter"}, ""},
		"firewalls": {func(b *bed) {
			b.write("/proc/17/comm", "firewalld\n")
			b.write("/etc/systemd/system/sysinit.target.wants/nftables.service", "")
			b.write("/etc/ufw/ufw.conf", "# comment\nENABLED=yes\n")
		}, []string{"network.firewall", "network.nftables_service", "network.firewall"}, "firewalld"},
		"sockets": {func(b *bed) {
			b.options.NRISocket, b.options.StreamAddress = "/var/run/nri/nri.sock", "127.0.0.1:10250"
			b.write("/proc/net/unix", "Num RefCount Protocol Flags Type St Inode Path\n"+
				"0000000000000000: 00000002 00000000 00010000 0001 01 20 /run/nri/nri.sock\n"+
				"0000000000000000: 00000002 00000000 00010000 0001 01 21 /run/containerd/containerd.sock\n"+
				"0000000000000000: 00000003 00000000 00000000 0001 03 22 /run/crio/crio.sock\n")
			b.write("/proc/net/tcp", "  sl  local_address rem_address   st\n   0: 0100007F:280A 00000000:0000 0A 0 0\n")
		}, []string{"network.stream_port", "network.nri_socket", "network.other_runtime"}, "127.0.0.1:10250"},
		"sockets of the daemon": {func(b *bed) {
			b.options.NRISocket, b.options.StreamAddress = "/var/run/nri/nri.sock", "127.0.0.1:10250"
			b.write("/proc/net/unix", "0000000000000000: 00000002 00000000 00010000 0001 01 20 /run/nri/nri.sock\n"+
				"0000000000000000: 00000002 00000000 00010000 0001 01 21 /run/criserver/criserver.sock\n")
			b.write("/proc/net/tcp", "   0: 00000000:280A 00000000:0000 0A 0 0\n")
		}, nil, ""},
		"port of another address": {func(b *bed) {
			b.options.StreamAddress = "127.0.0.1:10250"
			b.write("/proc/net/tcp", "   0: 0200007F:280A 00000000:0000 0A 0 0\n   1: 0100007F:280A 0100007F:0001 01 0 0\n")
		}, nil, ""},
		"runtime missing":    {func(b *bed) { b.options.Runtimes = []Runtime{{"kata", "/opt/kata"}, {"runc", "/usr/bin/runc"}} }, []string{"runtimes.missing"}, "kata has no executable file /opt/kata"},
		"no runtime":         {func(b *bed) { b.options.Runtimes = nil }, []string{"runtimes.none"}, ""},
		"broken runtime":     {func(b *bed) { b.outputs["runc"] = "fail" }, []string{"runtimes.broken"}, "exit status 127"},
		"silent runtime":     {func(b *bed) { b.outputs["runc"] = "" }, []string{"runtimes.broken"}, "prints nothing"},
		"vulnerable runtime": {func(b *bed) { b.outputs["runc"] = "runc version 1.0.0\n" }, []string{"runtimes.vulnerable"}, "known flaw"},
		"sysctls": {func(b *bed) {
			b.write("/proc/sys/fs/inotify/max_user_instances", "128\n")
			b.write("/proc/sys/kernel/pid_max", "4194304\n")
			b.write("/proc/sys/user/max_user_namespaces", "0\n")
		}, []string{"sysctls.inotify", "sysctls.user_namespaces"}, "fs.inotify.max_user_instances is 128, less than 256"},
		"old systemd": {func(b *bed) { b.outputs["--version"] = "systemd 247 (247.3)\n" }, []string{"system.systemd"}, "247"},
		"no systemd":  {func(b *bed) { b.remove("/run/systemd/system/x"); b.remove("/run/systemd/system") }, []string{"system.no_systemd"}, ""},
		"good unit":   {func(b *bed) { b.outputs["show"] = unit }, nil, ""},
		"bad unit": {func(b *bed) {
			b.outputs["show"] = "LoadState=loaded\nKillMode=control-group\nDelegate=no\nLimitNOFILE=1024\nLimitNPROC=infinity\nTasksMax=4915\n"
		}, []string{"system.kill_mode", "system.delegate", "system.limits", "system.limits"}, "control-group"},
		"no unit":          {func(b *bed) { b.outputs["show"] = "LoadState=not-found\nKillMode=control-group\n" }, nil, ""},
		"clock":            {func(b *bed) { b.kernel.now = time.Unix(0, 0) }, []string{"system.clock"}, "1970"},
		"clock drifts":     {func(b *bed) { b.kernel.noSync = true }, []string{"system.clock_sync"}, ""},
		"host name":        {func(b *bed) { b.write("/proc/sys/kernel/hostname", "node_1") }, []string{"system.hostname"}, "node_1"},
		"upper case":       {func(b *bed) { b.write("/proc/sys/kernel/hostname", "Node-1") }, nil, ""},
		"default hostname": {func(b *bed) { b.write("/proc/sys/kernel/hostname", "localhost.localdomain") }, []string{"system.hostname"}, ""},
		"swap":             {func(b *bed) { b.write("/proc/swaps", "Filename Type\n/dev/sda2 partition 1 0 -2\n") }, []string{"system.swap"}, "/dev/sda2"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			tc.change(b)
			got := b.check()
			if !slices.Equal(ids(got), tc.ids) {
				t.Fatalf("findings %+v, want %v", got, tc.ids)
			}
			if len(got) > 0 && !strings.Contains(got[0].Problem, tc.problem) {
				t.Errorf("problem %q, want one that contains %q", got[0].Problem, tc.problem)
			}
		})
	}
}
