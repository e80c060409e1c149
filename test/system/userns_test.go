package system

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// firstID is who the root of the pods of these tests is on the host.
const firstID = 196608

func idMappings() []*cri.IDMapping {
	return []*cri.IDMapping{{HostId: firstID, Length: 65536}}
}

// userPodConfig is a pod with hostUsers: false as the kubelet asks for it.
func userPodConfig(name string) *cri.PodSandboxConfig {
	c := podConfig(name)
	c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &cri.UserNamespace{
		Mode: cri.NamespaceMode_POD, Uids: idMappings(), Gids: idMappings(),
	}
	return c
}

// needUserNamespaces fails where the daemon does not find what this kernel has.
func (n *node) needUserNamespaces(t *testing.T) {
	t.Helper()
	r, err := n.rt.Status(t.Context(), &cri.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, h := range r.GetRuntimeHandlers() {
		if h.GetName() == "" || h.GetName() == "runc" {
			found = true
			if !h.GetFeatures().GetUserNamespaces() {
				t.Fatalf("handler %q has no user namespaces\n%s", h.GetName(), n.LogTail())
			}
		}
	}
	if !found {
		t.Fatal("no default handler")
	}
}

// ownerOnHost returns the owner of a file or process as the host sees it.
func ownerOnHost(t *testing.T, path string) (uid, gid uint32) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Uid, st.Gid
}

func (n *node) initPID(t *testing.T, id string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(n.Dir, "run", "containers", id, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestUserNamespaceIDs(t *testing.T) {
	n := newNode(t, "uns", 81)
	n.needUserNamespaces(t)
	p := n.runPod(t, userPodConfig("uns"))
	c := containerConfig(p, "main", busybox, "sleep", "1000")
	id := n.create(t, p, c)
	n.startContainer(t, id)

	if got := strings.Fields(n.exec(t, id, "cat", "/proc/self/uid_map")); strings.Join(got, " ") != fmt.Sprintf("0 %d 65536", firstID) {
		t.Errorf("uid_map: %q", got)
	}
	if got := n.exec(t, id, "cat", "/proc/self/setgroups"); got != "allow" {
		t.Errorf("setgroups: %q", got)
	}
	if uid, gid := ownerOnHost(t, fmt.Sprintf("/proc/%d", n.initPID(t, id))); uid != firstID || gid != firstID {
		t.Errorf("on the host the process is %d:%d", uid, gid)
	}
	if got := n.exec(t, id, "id", "-u"); got != "0" {
		t.Errorf("in the container it is %s", got)
	}
	for _, path := range []string{"/", "/bin/busybox", "/etc", "/tmp", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev", "/dev/shm", "/dev/pts", "/proc/1"} {
		if got := n.exec(t, id, "stat", "-c", "%u:%g", path); got != "0:0" {
			t.Errorf("%s belongs to %s", path, got)
		}
	}
	upper := filepath.Join(n.Dir, "root", "rootfs", id, "upper")
	n.exec(t, id, "sh", "-c", "echo mine > /new && chown 12:34 /new && echo more >> /etc/passwd && rm /etc/group && chown 7 /bin/busybox")
	if uid, gid := ownerOnHost(t, filepath.Join(upper, "new")); uid != firstID+12 || gid != firstID+34 {
		t.Errorf("what was written is of %d:%d on the host", uid, gid)
	}
	if uid, _ := ownerOnHost(t, filepath.Join(upper, "etc/passwd")); uid != firstID {
		t.Errorf("what was copied up is of %d on the host", uid)
	}
	if uid, _ := ownerOnHost(t, filepath.Join(upper, "bin/busybox")); uid != firstID+7 {
		t.Errorf("what was given away is of %d on the host", uid)
	}
	// The layer is shared with everybody and stays what it was.
	plain := n.runPod(t, podConfig("plain"))
	other := n.run(t, plain, "main", "sleep", "1000")
	if got := n.exec(t, other, "stat", "-c", "%u:%g", "/bin/busybox"); got != "0:0" {
		t.Errorf("in another pod busybox belongs to %s", got)
	}
	if got := strings.Fields(n.exec(t, other, "cat", "/proc/self/uid_map")); strings.Join(got, " ") != "0 0 4294967295" {
		t.Errorf("uid_map of a pod without: %q", got)
	}
}

func TestUserNamespaceUsers(t *testing.T) {
	n := newNode(t, "unsu", 82)
	n.needUserNamespaces(t)
	p := n.runPod(t, userPodConfig("users"))
	c := containerConfig(p, "user", busybox, "sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr; id -u; id -G; sleep 1000")
	sc := c.Linux.SecurityContext
	sc.RunAsUser, sc.RunAsGroup, sc.SupplementalGroups = &cri.Int64Value{Value: 1000}, &cri.Int64Value{Value: 1001}, []int64{5000}
	c.WorkingDir = "/made/for/it"
	id := n.create(t, p, c)
	n.startContainer(t, id)
	if uid, gid := ownerOnHost(t, fmt.Sprintf("/proc/%d", n.initPID(t, id))); uid != firstID+1000 || gid != firstID+1001 {
		t.Errorf("on the host the process is %d:%d", uid, gid)
	}
	if u := n.status(t, id).GetUser().GetLinux(); u.GetUid() != 1000 || u.GetGid() != 1001 {
		t.Errorf("status of the user: %v", u)
	}
	if got := n.exec(t, id, "stat", "-c", "%u:%g", "/made/for/it"); got != "0:0" {
		t.Errorf("the working directory that was made belongs to %s", got)
	}
	if got := n.exec(t, id, "sh", "-c", "echo hi > /dev/stdout; id -u"); got != "hi\n1000" {
		t.Errorf("exec: %q", got)
	}
	n.within(t, "the log", func() bool {
		lines := strings.Join(logLines(t, p, "user"), "\n")
		return strings.Contains(lines, "out") && strings.Contains(lines, "err") && strings.Contains(lines, "1001 5000")
	})

	for name, change := range map[string]func(*cri.LinuxContainerSecurityContext){
		"user":  func(sc *cri.LinuxContainerSecurityContext) { sc.RunAsUser.Value = 65536 },
		"group": func(sc *cri.LinuxContainerSecurityContext) { sc.RunAsGroup.Value = 70000 },
		"more":  func(sc *cri.LinuxContainerSecurityContext) { sc.SupplementalGroups = []int64{1 << 20} },
	} {
		bad := containerConfig(p, "bad-"+name, busybox, "true")
		bad.Linux.SecurityContext.RunAsUser, bad.Linux.SecurityContext.RunAsGroup = &cri.Int64Value{Value: 1}, &cri.Int64Value{Value: 1}
		change(bad.Linux.SecurityContext)
		n.notCreated(t, p, bad, codes.InvalidArgument, "not mapped")
	}
}

func (n *node) within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

// notCreated demands that a container is not created, and why.
func (n *node) notCreated(t *testing.T, p *pod, c *cri.ContainerConfig, code codes.Code, says string) {
	t.Helper()
	_, err := n.rt.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.id, Config: c, SandboxConfig: p.config})
	if status.Code(err) != code || !strings.Contains(err.Error(), says) {
		t.Errorf("create %s: got %v, want %s with %q", c.GetMetadata().GetName(), err, code, says)
	}
}

func TestUserNamespaceKernel(t *testing.T) {
	n := newNode(t, "unsk", 83)
	n.needUserNamespaces(t)
	config := userPodConfig("kernel")
	config.Linux.Sysctls = map[string]string{"kernel.shmmax": "54321", "net.ipv4.ip_unprivileged_port_start": "7", "net.ipv4.ping_group_range": "0 2147483647", "fs.mqueue.msg_max": "17"}
	p := n.runPod(t, config)
	plain := n.runPod(t, podConfig("plain"))
	c := containerConfig(p, "main", busybox, "sh", "-c", "mkdir /www && echo from the inside > /www/index.html && exec busybox httpd -f -p 80 -h /www")
	c.Linux.SecurityContext.Capabilities = &cri.Capability{AddCapabilities: []string{"NET_ADMIN", "NET_RAW", "SYS_ADMIN"}}
	id := n.create(t, p, c)
	n.startContainer(t, id)
	other := n.run(t, plain, "main", "sh", "-c", "mkdir /www && echo from the outside > /www/index.html && exec busybox httpd -f -p 80 -h /www")

	for name, want := range map[string]string{"kernel/shmmax": "54321", "net/ipv4/ip_unprivileged_port_start": "7", "fs/mqueue/msg_max": "17"} {
		if got := n.exec(t, id, "cat", "/proc/sys/"+name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := n.exec(t, id, "hostname"); got != "kernel" {
		t.Errorf("hostname: %q", got)
	}
	// Its root is root over its network, its host name and its mounts.
	n.exec(t, id, "sh", "-c", "hostname renamed && ip link add v0 type veth peer name v1 && ip addr add 192.0.2.1/32 dev v0 && ip link set v0 up")
	if got := n.exec(t, id, "sh", "-c", "mkdir /m && mount -t tmpfs t /m && stat -c %u /m && umount /m && ls /sys/class/net"); !strings.Contains(got, "eth0") || !strings.HasPrefix(got, "0\n") {
		t.Errorf("mount and sysfs: %q", got)
	}
	if got, err := os.Hostname(); err != nil || got == "renamed" {
		t.Error("the host was renamed")
	}
	ip, otherIP := n.podIPs(t, p.id)[0], n.podIPs(t, plain.id)[0]
	n.exec(t, id, "ping", "-c", "1", "-W", "5", otherIP)
	get := func(from, host string) string {
		out, _ := n.attempt(t, from, "sh", "-c", "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 5 "+host+" 80")
		return out
	}
	n.within(t, "both servers", func() bool {
		return strings.Contains(get(other, ip), "from the inside") && strings.Contains(get(id, otherIP), "from the outside")
	})
	// Over the host it has no power, and the host's files are nobody's.
	for _, cmd := range []string{"mknod /dev/mine b 8 0", "echo 1 > /proc/sysrq-trigger", "mount -o remount,rw /sys/fs/cgroup", "dmesg -n 1"} {
		if out, err := n.attempt(t, id, "sh", "-c", cmd); err == nil {
			t.Errorf("%s: allowed: %s", cmd, out)
		}
	}
	if got := n.exec(t, id, "sh", "-c", "ls -l /dev/null | cut -c1; echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c"); got != "c\n4\n4" {
		t.Errorf("devices: %q", got)
	}

	stats, err := n.rt.PodSandboxStats(t.Context(), &cri.PodSandboxStatsRequest{PodSandboxId: p.id})
	if err != nil {
		t.Fatal(err)
	}
	l := stats.GetStats().GetLinux()
	if l.GetNetwork().GetDefaultInterface().GetRxBytes().GetValue() == 0 || l.GetMemory().GetWorkingSetBytes().GetValue() == 0 || l.GetProcess().GetProcessCount().GetValue() == 0 {
		t.Errorf("figures of the pod: %v", l)
	}
}

// attempt is exec of what may fail.
func (n *node) attempt(t *testing.T, id string, cmd ...string) (string, error) {
	t.Helper()
	r, err := n.rt.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: id, Cmd: cmd, Timeout: 30})
	if err == nil && r.GetExitCode() != 0 {
		err = fmt.Errorf("exit code %d: %s", r.GetExitCode(), r.GetStderr())
	}
	return string(r.GetStdout()), err
}

func TestUserNamespaceVolumes(t *testing.T) {
	n := newNode(t, "unsv", 84)
	n.needUserNamespaces(t)
	p := n.runPod(t, userPodConfig("volumes"))
	volume, tmpfs := filepath.Join(n.Dir, "volume"), filepath.Join(n.Dir, "tmpfs")
	for _, dir := range []string{volume, tmpfs, filepath.Join(volume, "below")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{tmpfs, filepath.Join(volume, "below")} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	}
	file := filepath.Join(volume, "file")
	for _, path := range []string{file, filepath.Join(tmpfs, "file"), filepath.Join(volume, "below", "file")} {
		if err := os.WriteFile(path, []byte("the host's\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(file, 12, 34); err != nil {
		t.Fatal(err)
	}
	c := containerConfig(p, "main", busybox, "sleep", "1000")
	mount := func(host, at string, mapped bool) *cri.Mount {
		m := &cri.Mount{HostPath: host, ContainerPath: at}
		if mapped {
			m.UidMappings, m.GidMappings = idMappings(), idMappings()
		}
		return m
	}
	readOnly := mount(volume, "/ro", true)
	readOnly.Readonly, readOnly.RecursiveReadOnly = true, true
	c.Mounts = []*cri.Mount{mount(volume, "/v", true), mount(tmpfs, "/t", true), mount(file, "/one", true), mount(volume, "/plain", false), readOnly}
	id := n.create(t, p, c)
	n.startContainer(t, id)
	for path, want := range map[string]string{
		"/v": "0:0", "/v/file": "12:34", "/v/below/file": "0:0", "/t/file": "0:0", "/one": "12:34", "/plain/file": "65534:65534", "/ro/file": "12:34", "/ro/below/file": "0:0",
	} {
		if got := n.exec(t, id, "stat", "-c", "%u:%g", path); got != want {
			t.Errorf("%s belongs to %s, want %s", path, got, want)
		}
	}
	if got := n.exec(t, id, "cat", "/v/file", "/v/below/file", "/t/file", "/one"); strings.Count(got, "the host's") != 4 {
		t.Errorf("files: %q", got)
	}
	n.exec(t, id, "sh", "-c", "echo new > /v/new && echo new > /v/below/new && chown 56:78 /v/below/new")
	for path, want := range map[string]uint32{"new": 0, "below/new": 56} {
		if uid, _ := ownerOnHost(t, filepath.Join(volume, path)); uid != want {
			t.Errorf("%s is of %d on the host, want %d", path, uid, want)
		}
	}
	if out, err := n.attempt(t, id, "sh", "-c", "echo x > /ro/x || echo x > /ro/below/x"); err == nil {
		t.Errorf("read-only: %s", out)
	}

	for name, tc := range map[string]struct {
		change func(*cri.Mount)
		code   codes.Code
		says   string
	}{
		"only uids":     {func(m *cri.Mount) { m.GidMappings = nil }, codes.InvalidArgument, "config.mounts[0]: uidMappings and gidMappings"},
		"length 0":      {func(m *cri.Mount) { m.UidMappings = []*cri.IDMapping{{}} }, codes.InvalidArgument, "length 0"},
		"overlap":       {func(m *cri.Mount) { m.GidMappings = append(idMappings(), idMappings()...) }, codes.InvalidArgument, "overlaps"},
		"file system":   {func(m *cri.Mount) { m.HostPath = "/proc/sys" }, codes.FailedPrecondition, "/proc/sys"},
		"below is proc": {func(m *cri.Mount) { m.HostPath = "/" }, codes.FailedPrecondition, "does not support it"},
	} {
		bad := containerConfig(p, "bad", busybox, "true")
		bad.Mounts = []*cri.Mount{mount(volume, "/v", true)}
		tc.change(bad.Mounts[0])
		t.Run(name, func(t *testing.T) { n.notCreated(t, p, bad, tc.code, tc.says) })
	}
}

func TestUserNamespaceSharedPID(t *testing.T) {
	n := newNode(t, "unsp", 85)
	n.needUserNamespaces(t)
	config := userPodConfig("shared")
	config.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
	p := n.runPod(t, config)
	one, two := n.run(t, p, "one", "sleep", "1001"), n.run(t, p, "two", "sleep", "1002")
	if got := n.exec(t, one, "ps"); !strings.Contains(got, "sleep 1001") || !strings.Contains(got, "sleep 1002") || !strings.Contains(got, "pause") {
		t.Errorf("processes: %s", got)
	}
	if out, err := n.attempt(t, two, "ls", "/proc/1/root/pause"); err == nil {
		t.Errorf("the root of the pause can be looked at: %s", out)
	}

	// A debug container in the PID namespace of another.
	q := n.runPod(t, userPodConfig("target"))
	target := n.run(t, q, "main", "sleep", "1003")
	debug := containerConfig(q, "debug", busybox, "sleep", "1004")
	debug.Linux.SecurityContext.NamespaceOptions = &cri.NamespaceOption{
		Pid: cri.NamespaceMode_TARGET, TargetId: target, UsernsOptions: q.config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetUsernsOptions(),
	}
	id := n.create(t, q, debug)
	n.startContainer(t, id)
	if got := n.exec(t, id, "ps"); !strings.Contains(got, "sleep 1003") {
		t.Errorf("processes of the target: %s", got)
	}
}

func TestUserNamespacePrivileged(t *testing.T) {
	n := newNode(t, "unspr", 86)
	n.needUserNamespaces(t)
	config := userPodConfig("privileged")
	config.Linux.SecurityContext.Privileged = true
	p := n.runPod(t, config)
	c := containerConfig(p, "main", busybox, "sleep", "1000")
	c.Linux.SecurityContext.Privileged = true
	id := n.create(t, p, c)
	n.startContainer(t, id)
	if got := strings.Fields(n.exec(t, id, "cat", "/proc/self/uid_map")); len(got) != 3 || got[1] != strconv.Itoa(firstID) {
		t.Errorf("uid_map: %v", got)
	}
	n.exec(t, id, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward && mkdir /m && mount -t tmpfs t /m")
	if out, err := n.attempt(t, id, "sh", "-c", "mknod /dev/disk b 8 0 && head -c 1 /dev/disk"); err == nil {
		t.Errorf("a disk of the host: %s", out)
	}
	if entries := n.exec(t, id, "ls", "/dev"); strings.Contains(entries, "vda") || strings.Contains(entries, "kmsg") {
		t.Errorf("devices of the host: %s", entries)
	}
}

func TestUserNamespaceRecovery(t *testing.T) {
	n := newNode(t, "unsr", 87)
	n.needUserNamespaces(t)
	p := n.runPod(t, userPodConfig("recovery"))
	shared := userPodConfig("recovery-shared")
	shared.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
	q := n.runPod(t, shared)
	id, other := n.run(t, p, "main", "sleep", "1000"), n.run(t, q, "main", "sleep", "1000")

	for _, end := range []func(){func() {
		if err := n.Stop(); err != nil {
			t.Fatal(err)
		}
	}, n.Kill} {
		end()
		n.restart(t)
		n.needUserNamespaces(t)
		for _, pod := range []*pod{p, q} {
			r, err := n.rt.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: pod.id})
			if err != nil || r.GetStatus().GetState() != cri.PodSandboxState_SANDBOX_READY {
				t.Fatalf("pod after the restart: %v, %v", r.GetStatus(), err)
			}
			if o := r.GetStatus().GetLinux().GetNamespaces().GetOptions().GetUsernsOptions(); o.GetMode() != cri.NamespaceMode_POD || len(o.GetUids()) != 1 {
				t.Errorf("options in the status: %v", o)
			}
		}
		for _, c := range []string{id, other} {
			if got := n.exec(t, c, "sh", "-c", "echo x > /dev/stdout; id -u"); got != "x\n0" {
				t.Errorf("exec after the restart: %q", got)
			}
		}
	}
	// Also a new container finds its way into the namespace.
	later := n.run(t, p, "later", "cat", "/proc/self/uid_map")
	n.exited(t, later)
	if got := strings.Join(logLines(t, p, "later"), ""); !strings.Contains(got, strconv.Itoa(firstID)) {
		t.Errorf("a container of later has %q", got)
	}
}

// A daemon that is killed while pods are being made leaves nothing of them.
func TestUserNamespaceKilledMidway(t *testing.T) {
	n := newNode(t, "unsm", 88)
	n.needUserNamespaces(t)
	for i := range 6 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			config := userPodConfig(fmt.Sprint("midway", i))
			if i%2 == 1 {
				config.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
			}
			_, _ = n.rt.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config})
		}()
		// At another moment each time, wherever the pod then is.
		dir := filepath.Join(n.Dir, "run", "ns")
		wanted := []string{"", "user", "net", "uts", "pid", ""}[i]
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
			if found, _ := filepath.Glob(filepath.Join(dir, "*", wanted)); len(found) > 0 {
				break
			}
		}
		n.Kill()
		<-done
		n.restart(t)
	}
	// close finds what is left.
}

func TestUserNamespaceBadInput(t *testing.T) {
	n := newNode(t, "unsb", 89)
	n.needUserNamespaces(t)
	for name, tc := range map[string]struct {
		change func(o *cri.NamespaceOption)
		says   string
	}{
		"container":  {func(o *cri.NamespaceOption) { o.UsernsOptions.Mode = cri.NamespaceMode_CONTAINER }, "userns_options.mode"},
		"target":     {func(o *cri.NamespaceOption) { o.UsernsOptions.Mode = cri.NamespaceMode_TARGET }, "userns_options.mode"},
		"node maps":  {func(o *cri.NamespaceOption) { o.UsernsOptions.Mode = cri.NamespaceMode_NODE }, "userns_options.mode"},
		"no maps":    {func(o *cri.NamespaceOption) { o.UsernsOptions.Uids = nil }, "userns_options.uids"},
		"two maps":   {func(o *cri.NamespaceOption) { o.UsernsOptions.Gids = append(o.UsernsOptions.Gids, idMappings()...) }, "userns_options.gids"},
		"host net":   {func(o *cri.NamespaceOption) { o.Network = cri.NamespaceMode_NODE }, "namespace_options.network"},
		"host pid":   {func(o *cri.NamespaceOption) { o.Pid = cri.NamespaceMode_NODE }, "namespace_options.pid"},
		"host ipc":   {func(o *cri.NamespaceOption) { o.Ipc = cri.NamespaceMode_NODE }, "namespace_options.ipc"},
		"no root":    {func(o *cri.NamespaceOption) { o.UsernsOptions.Uids[0].ContainerId = 1 }, "container_id"},
		"zero":       {func(o *cri.NamespaceOption) { o.UsernsOptions.Uids[0].Length = 0 }, "length"},
		"other gids": {func(o *cri.NamespaceOption) { o.UsernsOptions.Gids[0].HostId++ }, "userns_options.gids"},
	} {
		c := userPodConfig("bad")
		tc.change(c.Linux.SecurityContext.NamespaceOptions)
		_, err := n.rt.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: c})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v", name, err)
		}
	}

	p, plain := n.runPod(t, userPodConfig("good")), n.runPod(t, podConfig("plain"))
	differs := func(in *pod, options *cri.UserNamespace) *cri.ContainerConfig {
		c := containerConfig(in, "differs", busybox, "true")
		c.Linux.SecurityContext.NamespaceOptions = &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER, UsernsOptions: options}
		return c
	}
	const says = "namespace_options.userns_options"
	n.notCreated(t, p, differs(p, &cri.UserNamespace{Mode: cri.NamespaceMode_NODE}), codes.InvalidArgument, says)
	n.notCreated(t, p, differs(p, &cri.UserNamespace{Mode: cri.NamespaceMode_CONTAINER}), codes.InvalidArgument, says)
	other := []*cri.IDMapping{{HostId: 1 << 20, Length: 65536}}
	n.notCreated(t, p, differs(p, &cri.UserNamespace{Mode: cri.NamespaceMode_POD, Uids: other, Gids: other}), codes.InvalidArgument, says)
	n.notCreated(t, plain, differs(plain, &cri.UserNamespace{Mode: cri.NamespaceMode_POD, Uids: idMappings(), Gids: idMappings()}), codes.InvalidArgument, says)
	node := differs(p, nil)
	node.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_NODE
	n.notCreated(t, p, node, codes.InvalidArgument, "namespace_options.pid")
	// None at all is the pod's.
	id := n.create(t, p, differs(p, nil))
	n.startContainer(t, id)
	if s := n.exited(t, id); s.GetExitCode() != 0 {
		t.Errorf("a container without options: %v", s)
	}
}
