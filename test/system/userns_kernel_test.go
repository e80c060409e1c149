package system

import (
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestUserNamespaceKernel(t *testing.T) {
	n := newNode(t, "unsk", 83)
	n.needUserNamespaces(t)
	config := userPodConfig("kernel")
	config.Linux.Sysctls = map[string]string{"kernel.shmmax": "54321", "net.ipv4.ip_unprivileged_port_start": "7", "net.ipv4.ping_group_range": "0 2147483647", "fs.mqueue.msg_max": "17"}
	p := n.RunPod(t, config)
	plain := n.RunPod(t, podConfig("plain"))
	c := containerConfig(p, "main", busybox, "sh", "-c", "mkdir /www && echo from the inside > /www/index.html && exec busybox httpd -f -p 80 -h /www")
	c.Linux.SecurityContext.Capabilities = &cri.Capability{AddCapabilities: []string{"NET_ADMIN", "NET_RAW", "SYS_ADMIN"}}
	// The default profile denies mounts, which the kernel allows to root of a user namespace.
	c.Linux.SecurityContext.Apparmor = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}
	id := n.CreateContainer(t, p, c)
	n.StartContainer(t, id)
	other := n.run(t, plain, "main", "sh", "-c", "mkdir /www && echo from the outside > /www/index.html && exec busybox httpd -f -p 80 -h /www")

	for name, want := range map[string]string{"kernel/shmmax": "54321", "net/ipv4/ip_unprivileged_port_start": "7", "fs/mqueue/msg_max": "17", "net/ipv4/ping_group_range": "0\t65535"} {
		if got := n.Exec(t, id, "cat", "/proc/sys/"+name); got != want {
			t.Errorf("sysctl %s: got %q, want %q", name, got, want)
		}
	}
	if got := n.Exec(t, id, "hostname"); got != "kernel" {
		t.Errorf("hostname: got %q, want kernel", got)
	}
	// Root of the pod has all rights over its network, hostname and mounts.
	n.Exec(t, id, "sh", "-c", "hostname renamed && ip link add v0 type veth peer name v1 && ip addr add 192.0.2.1/32 dev v0 && ip link set v0 up")
	if got := n.Exec(t, id, "sh", "-c", "mkdir /m && mount -t tmpfs t /m && stat -c %u /m && umount /m && ls /sys/class/net"); !strings.Contains(got, "eth0") || !strings.HasPrefix(got, "0\n") {
		t.Errorf("owner of a new tmpfs and interfaces in sysfs: got %q, want owner 0 and eth0", got)
	}
	if got, err := os.Hostname(); err != nil || got == "renamed" {
		t.Errorf("hostname of the host: got %q (error %v), want no change", got, err)
	}
	ip, otherIP := n.podIPs(t, p.ID)[0], n.podIPs(t, plain.ID)[0]
	n.Exec(t, id, "ping", "-c", "1", "-W", "5", otherIP)
	get := func(from, host string) string {
		out, _ := n.attempt(t, from, "sh", "-c", "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 5 "+host+" 80")
		return out
	}
	waitFor(t, "both servers", func() bool {
		return strings.Contains(get(other, ip), "from the inside") && strings.Contains(get(id, otherIP), "from the outside")
	})
	// Root of the pod has no rights over the host, and files of the host have the overflow uid.
	for _, cmd := range []string{"mknod /dev/mine b 8 0", "echo 1 > /proc/sysrq-trigger", "mount -o remount,rw /sys/fs/cgroup", "dmesg -n 1"} {
		if out, err := n.attempt(t, id, "sh", "-c", cmd); err == nil {
			t.Errorf("%s succeeded with output %q, want an error", cmd, out)
		}
	}
	if got := n.Exec(t, id, "sh", "-c", "ls -l /dev/null | cut -c1; echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c"); got != "c\n4\n4" {
		t.Errorf("output of commands that use devices: got %q, want \"c\\n4\\n4\"", got)
	}

	stats, err := n.RuntimeService.PodSandboxStats(t.Context(), &cri.PodSandboxStatsRequest{PodSandboxId: p.ID})
	if err != nil {
		t.Fatal(err)
	}
	l := stats.GetStats().GetLinux()
	if l.GetNetwork().GetDefaultInterface().GetRxBytes().GetValue() == 0 || l.GetMemory().GetWorkingSetBytes().GetValue() == 0 || l.GetProcess().GetProcessCount().GetValue() == 0 {
		t.Errorf("stats of the pod: got %v, want received bytes, a working set and processes", l)
	}
}

func TestUserNamespaceSharedPID(t *testing.T) {
	n := newNode(t, "unsp", 85)
	n.needUserNamespaces(t)
	config := userPodConfig("shared")
	config.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
	p := n.RunPod(t, config)
	one, two := n.run(t, p, "one", "sleep", "1001"), n.run(t, p, "two", "sleep", "1002")
	if got := n.Exec(t, one, "ps"); !strings.Contains(got, "sleep 1001") || !strings.Contains(got, "sleep 1002") || !strings.Contains(got, "pause") {
		t.Errorf("processes in the shared PID namespace: got %s, want both containers and the pause process", got)
	}
	if out, err := n.attempt(t, two, "ls", "/proc/1/root/pause"); err == nil {
		t.Errorf("ls of the root directory of the pause process: got %s, want an error", out)
	}

	// A debug container in the PID namespace of another.
	q := n.RunPod(t, userPodConfig("target"))
	target := n.run(t, q, "main", "sleep", "1003")
	debug := containerConfig(q, "debug", busybox, "sleep", "1004")
	debug.Linux.SecurityContext.NamespaceOptions = &cri.NamespaceOption{
		Pid: cri.NamespaceMode_TARGET, TargetId: target, UsernsOptions: q.Config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions(),
	}
	id := n.CreateContainer(t, q, debug)
	n.StartContainer(t, id)
	if got := n.Exec(t, id, "ps"); !strings.Contains(got, "sleep 1003") {
		t.Errorf("processes in the PID namespace of the target: got %s, want sleep 1003", got)
	}
}

func TestUserNamespacePrivileged(t *testing.T) {
	n := newNode(t, "unspr", 86)
	n.needUserNamespaces(t)
	config := userPodConfig("privileged")
	config.Linux.SecurityContext.Privileged = true
	p := n.RunPod(t, config)
	c := containerConfig(p, "main", busybox, "sleep", "1000")
	c.Linux.SecurityContext.Privileged = true
	id := n.CreateContainer(t, p, c)
	n.StartContainer(t, id)
	if got := strings.Fields(n.Exec(t, id, "cat", "/proc/self/uid_map")); len(got) != 3 || got[1] != strconv.Itoa(firstID) {
		t.Errorf("uid_map: got %v, want host ID %d", got, firstID)
	}
	n.Exec(t, id, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward && mkdir /m && mount -t tmpfs t /m")
	if out, err := n.attempt(t, id, "sh", "-c", "mknod /dev/disk b 8 0 && head -c 1 /dev/disk"); err == nil {
		t.Errorf("read a disk of the host: got %q, want an error", out)
	}
	if entries := n.Exec(t, id, "ls", "/dev"); strings.Contains(entries, "vda") || strings.Contains(entries, "kmsg") {
		t.Errorf("entries of /dev: got %s, want no devices of the host", entries)
	}
}

// TestUserNamespaceSysctls sets the sysctls that Kubernetes allows for every pod.
func TestUserNamespaceSysctls(t *testing.T) {
	n := newNode(t, "unss", 160)
	n.needUserNamespaces(t)
	config := userPodConfig("sysctls")
	config.Linux.Sysctls = map[string]string{
		"kernel.shm_rmid_forced": "1", "net.ipv4.ip_local_port_range": "30000\t40000", "net.ipv4.tcp_syncookies": "0",
		"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ip_local_reserved_ports": "31000", "net.ipv4.tcp_keepalive_time": "600",
		"net.ipv4.tcp_fin_timeout": "30", "net.ipv4.tcp_keepalive_intvl": "60", "net.ipv4.tcp_keepalive_probes": "5",
		"net.ipv4.tcp_rmem": "4096\t131072\t6000000", "net.ipv4.tcp_wmem": "4096\t16384\t4000000",
		"net.core.somaxconn": "1234", "kernel.msgmax": "9999", "kernel.sem": "251\t32001\t33\t129", "net.ipv4.conf.eth0.log_martians": "1",
	}
	id := n.run(t, n.RunPod(t, config), "main", "sleep", "1000")
	for _, name := range slices.Sorted(maps.Keys(config.Linux.Sysctls)) {
		if got := n.Exec(t, id, "cat", "/proc/sys/"+strings.ReplaceAll(name, ".", "/")); got != config.Linux.Sysctls[name] {
			t.Errorf("sysctl %s: got %q, want %q", name, got, config.Linux.Sysctls[name])
		}
	}
}

// TestUserNamespaceConfinement checks the confinement of containers in a user namespace.
func TestUserNamespaceConfinement(t *testing.T) {
	n := newNode(t, "unsc", 161)
	n.needUserNamespaces(t)
	p := n.RunPod(t, userPodConfig("confined"))
	c := containerConfig(p, "main", busybox, "sleep", "1000")
	c.Linux.SecurityContext.MaskedPaths, c.Linux.SecurityContext.ReadonlyPaths = []string{"/proc/version", "/proc/scsi"}, []string{"/proc/sys", "/proc/irq"}
	c.Linux.SecurityContext.ReadonlyRootfs, c.Linux.SecurityContext.NoNewPrivs = true, true
	c.Devices = []*cri.Device{{HostPath: "/dev/zero", ContainerPath: "/dev/nil", Permissions: "rw"}}
	id := n.CreateContainer(t, p, c)
	n.StartContainer(t, id)
	for script, want := range map[string]string{
		"head -c 3 /dev/nil | wc -c":                                 "3",
		"wc -c < /proc/version":                                      "0",
		"echo 1 > /proc/sys/net/ipv4/ip_forward 2>&1 || echo no":     "no",
		"touch /x 2>/dev/null || echo no":                            "no",
		"grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status|cut -f2": "1\n2",
		"cat /proc/1/oom_score_adj":                                  "100",
		"unshare -U true 2>/dev/null || echo no":                     "no",
		"touch $(ls -d /sys/fs/cgroup/memory 2>/dev/null || echo /sys/fs/cgroup)/x 2>/dev/null || echo no": "no",
	} {
		if got, _ := n.attempt(t, id, "sh", "-c", script); !strings.HasSuffix(strings.TrimSpace(got), want) {
			t.Errorf("%s: got %q, want %q", script, got, want)
		}
	}
	if got := n.Exec(t, id, "grep", "CapEff", "/proc/self/status"); strings.Contains(got, "ffffffff") {
		t.Errorf("effective capabilities: got %s, want the default set", got)
	}
}
