package system

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// firstID is the host id of root in the pods of these tests.
const firstID = 196608

func idMappings() []*cri.IDMapping {
	return []*cri.IDMapping{{HostId: firstID, Length: 65536}}
}

// userPodConfig returns a pod with hostUsers: false, like the kubelet.
func userPodConfig(name string) *cri.PodSandboxConfig {
	c := podConfig(name)
	c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = &cri.UserNamespace{
		Mode: cri.NamespaceMode_POD, Uids: idMappings(), Gids: idMappings(),
	}
	return c
}

// needMappedTmpfs skips the test on kernels without id-mapped tmpfs mounts.
func needMappedTmpfs(t *testing.T) {
	t.Helper()
	if ok, err := harness.MapsTmpfs(); err != nil {
		t.Fatal(err)
	} else if !ok {
		t.Skip("pods cannot have user namespaces: the kernel does not map the ids of tmpfs mounts, which needs Linux 6.3")
	}
}

// needUserNamespaces skips the test if the kernel does not support user namespaces for pods. The test fails if the
// kernel does and the daemon reports no support.
func (n *node) needUserNamespaces(t *testing.T) {
	t.Helper()
	needMappedTmpfs(t)
	n.waitChecked(t)
	r, err := n.RuntimeService.Status(t.Context(), &cri.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, h := range r.GetRuntimeHandlers() {
		if h.GetName() == "" {
			found = true
			if !h.GetFeatures().GetUserNamespaces() {
				t.Fatalf("the default handler has no user namespaces: %v", r.GetInfo())
			}
		}
	}
	if !found {
		t.Fatal("the status lists no default handler, want one with user namespaces")
	}
}

// ownerOnHost returns the owner of a file or process on the host.
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
	p := n.RunPod(t, userPodConfig("uns"))
	c := containerConfig(p, "main", busybox, "sleep", "1000")
	id := n.CreateContainer(t, p, c)
	n.StartContainer(t, id)

	if got := strings.Fields(n.Exec(t, id, "cat", "/proc/self/uid_map")); strings.Join(got, " ") != fmt.Sprintf("0 %d 65536", firstID) {
		t.Errorf("uid_map: got %q, want container ID 0, host ID %d, length 65536", got, firstID)
	}
	if got := n.Exec(t, id, "cat", "/proc/self/setgroups"); got != "allow" {
		t.Errorf("setgroups: got %q, want allow", got)
	}
	if uid, gid := ownerOnHost(t, fmt.Sprintf("/proc/%d", n.initPID(t, id))); uid != firstID || gid != firstID {
		t.Errorf("user of the process on the host: got %d:%d, want %d:%d", uid, gid, firstID, firstID)
	}
	if got := n.Exec(t, id, "id", "-u"); got != "0" {
		t.Errorf("user of the process in the container: got %s, want 0", got)
	}
	for _, path := range []string{"/", "/bin/busybox", "/etc", "/tmp", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev", "/dev/shm", "/dev/mqueue", "/dev/pts", "/proc/1"} {
		if got := n.Exec(t, id, "stat", "-c", "%u:%g", path); got != "0:0" {
			t.Errorf("owner of %s: got %s, want 0:0", path, got)
		}
	}
	upper := filepath.Join(n.Dir, "root", "rootfs", id, "upper")
	n.Exec(t, id, "sh", "-c", "echo mine > /new && chown 12:34 /new && echo more >> /etc/passwd && rm /etc/group && chown 7 /bin/busybox")
	if uid, gid := ownerOnHost(t, filepath.Join(upper, "new")); uid != firstID+12 || gid != firstID+34 {
		t.Errorf("owner of the new file on the host: got %d:%d, want %d:%d", uid, gid, firstID+12, firstID+34)
	}
	if uid, _ := ownerOnHost(t, filepath.Join(upper, "etc/passwd")); uid != firstID {
		t.Errorf("owner of the copied-up file on the host: got %d, want %d", uid, firstID)
	}
	if uid, _ := ownerOnHost(t, filepath.Join(upper, "bin/busybox")); uid != firstID+7 {
		t.Errorf("owner on the host after chown 7: got %d, want %d", uid, firstID+7)
	}
	// The layer is shared with other pods and does not change.
	plain := n.RunPod(t, podConfig("plain"))
	other := n.run(t, plain, "main", "sleep", "1000")
	if got := n.Exec(t, other, "stat", "-c", "%u:%g", "/bin/busybox"); got != "0:0" {
		t.Errorf("owner of busybox in a pod without a user namespace: got %s, want 0:0", got)
	}
	if got := strings.Fields(n.Exec(t, other, "cat", "/proc/self/uid_map")); strings.Join(got, " ") != "0 0 4294967295" {
		t.Errorf("uid_map of a pod without a user namespace: got %q, want \"0 0 4294967295\"", got)
	}
}

func TestUserNamespaceUsers(t *testing.T) {
	n := newNode(t, "unsu", 82)
	n.needUserNamespaces(t)
	p := n.RunPod(t, userPodConfig("users"))
	c := containerConfig(p, "user", busybox, "sh", "-c", "echo out > /dev/stdout; echo err > /dev/stderr; id -u; id -G; sleep 1000")
	sc := c.Linux.SecurityContext
	sc.RunAsUser, sc.RunAsGroup, sc.SupplementalGroups = &cri.Int64Value{Value: 1000}, &cri.Int64Value{Value: 1001}, []int64{5000}
	c.WorkingDir = "/missing/directory"
	id := n.CreateContainer(t, p, c)
	n.StartContainer(t, id)
	if uid, gid := ownerOnHost(t, fmt.Sprintf("/proc/%d", n.initPID(t, id))); uid != firstID+1000 || gid != firstID+1001 {
		t.Errorf("user of the process on the host: got %d:%d, want %d:%d", uid, gid, firstID+1000, firstID+1001)
	}
	if u := n.ContainerStatus(t, id).GetUser().GetLinux(); u.GetUid() != 1000 || u.GetGid() != 1001 {
		t.Errorf("user in the status: got %v, want 1000:1001", u)
	}
	if got := n.Exec(t, id, "stat", "-c", "%u:%g", "/missing/directory"); got != "0:0" {
		t.Errorf("owner of the created working directory: got %s, want 0:0", got)
	}
	if got := n.Exec(t, id, "sh", "-c", "echo hi > /dev/stdout; id -u"); got != "hi\n1000" {
		t.Errorf("output of exec: got %q, want \"hi\\n1000\"", got)
	}
	waitFor(t, "the log", func() bool {
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

func (n *node) notCreated(t *testing.T, p *pod, c *cri.ContainerConfig, code codes.Code, says string) {
	t.Helper()
	_, err := n.RuntimeService.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: c, SandboxConfig: p.Config})
	if status.Code(err) != code || !strings.Contains(err.Error(), says) {
		t.Errorf("create %s: got %v, want %s with %q", c.GetMetadata().GetName(), err, code, says)
	}
}

func (n *node) attempt(t *testing.T, id string, cmd ...string) (string, error) {
	t.Helper()
	r, err := n.RuntimeService.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: id, Cmd: cmd, Timeout: harness.PatienceSeconds(30)})
	if err == nil && r.GetExitCode() != 0 {
		err = fmt.Errorf("exit code %d: %s", r.GetExitCode(), r.GetStderr())
	}
	return string(r.GetStdout()), err
}
