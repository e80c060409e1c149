package sandbox

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/criserver/criserver/internal/osthread"
	"github.com/criserver/criserver/sandbox/namespace"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const nsGetUserNS = 0xb701 // NS_GET_USERNS of ioctl_ns(2)

func userOptions(mode cri.NamespaceMode, ids ...*cri.IDMapping) *cri.UserNamespace {
	return &cri.UserNamespace{Mode: mode, Uids: ids, Gids: ids}
}

func idMap(container, host, length uint32) *cri.IDMapping {
	return &cri.IDMapping{ContainerId: container, HostId: host, Length: length}
}

// userPod returns a request for a user namespace as the kubelet sends it.
func userPod(name string) *cri.PodSandboxConfig {
	c := podConfig(name)
	c.Linux.SecurityContext.NamespaceOptions.UsernsOptions = userOptions(cri.NamespaceMode_POD, idMap(0, 327680, 65536))
	return c
}

// ownerOf returns the inode of the user namespace that owns a namespace.
func ownerOf(t *testing.T, path string) uint64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), nsGetUserNS, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	defer unix.Close(int(fd))
	var st unix.Stat_t
	if err := unix.Fstat(int(fd), &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// inode returns the inode of a file or namespace.
func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// owner returns the user who owns a file.
func owner(t *testing.T, path string) uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Uid
}

// sysctlIn returns the value of a sysctl in the namespaces of a pod.
func sysctlIn(t *testing.T, ns Namespaces, path string) string {
	t.Helper()
	var value string
	err := osthread.Run(func() error {
		for _, p := range []string{ns.Net, ns.IPC} {
			fd, err := unix.Open(p, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Setns(fd, 0); err != nil {
				return err
			}
		}
		b, err := os.ReadFile("/proc/sys/" + path)
		value = strings.TrimSpace(string(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestUserNamespace(t *testing.T) {
	b, _ := fakeBed(t)
	b.cfg.PausePath = buildBinary(t, "../cmd/conmon")
	b.cfg.UserNamespaces = func(string) error { return nil }
	m := b.start()
	c := userPod("a")
	c.Linux.Sysctls = map[string]string{"kernel.shmmax": "12345", "net.ipv4.ip_unprivileged_port_start": "99", "fs.mqueue.msg_max": "21", "net.ipv4.ping_group_range": "0 2147483647"}
	shared := userPod("b")
	shared.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
	shared.Linux.SecurityContext.NamespaceOptions.UsernsOptions = userOptions(cri.NamespaceMode_POD, idMap(0, 4000, 1000)) // fewer IDs than the usual ID of the pause
	p, q := mustRun(t, m, c), mustRun(t, m, shared)

	for _, pod := range []*Pod{p, q} {
		user := inode(t, pod.Namespaces.User)
		if user == inode(t, "/proc/self/ns/user") {
			t.Error("the pod has the user namespace of the host")
		}
		for _, ns := range []string{pod.Namespaces.Net, pod.Namespaces.IPC, pod.Namespaces.UTS, pod.Namespaces.PID} {
			if ns != "" && ownerOf(t, ns) != user {
				t.Errorf("another user namespace owns %s", ns)
			}
		}
	}
	for path, want := range map[string]string{
		"net/ipv4/ping_group_range": "327680\t393215", // all groups of the pod, as the host sees them
		"kernel/shmmax":             "12345", "net/ipv4/ip_unprivileged_port_start": "99", "fs/mqueue/msg_max": "21", "net/ipv6/conf/default/accept_ra": "0",
	} {
		if got := sysctlIn(t, p.Namespaces, path); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	for _, path := range []string{p.Hosts, p.Hostname, p.ResolvConf, p.Shm} {
		if uid := owner(t, path); uid != 327680 {
			t.Errorf("%s belongs to user %d", path, uid)
		}
	}
	if p.PausePID != 0 || q.PausePID == 0 {
		t.Errorf("got pauses %d and %d, want none and one", p.PausePID, q.PausePID)
	}
	if uid := owner(t, "/proc/"+strconv.Itoa(q.PausePID)); uid != 4999 {
		t.Errorf("got a pause with user %d, want 4999", uid)
	}
	if got := inode(t, "/proc/"+strconv.Itoa(q.PausePID)+"/ns/net"); got != inode(t, q.Namespaces.Net) {
		t.Error("the pause is not in the network namespace of the pod")
	}

	b.halt()
	if err := namespace.Unpin(filepath.Dir(p.Namespaces.User), namespace.User); err != nil {
		t.Fatal(err)
	}
	m = b.start()
	if got, err := m.Get(q.ID); err != nil || !got.Ready || got.Namespaces.User != q.Namespaces.User {
		t.Errorf("after the restart: got %+v, %v", got, err)
	}
	if got, err := m.Get(p.ID); err != nil || got.Ready || !strings.Contains(got.NotReadyReason, "user") {
		t.Errorf("without its user namespace: got %+v, %v", got, err)
	}
	mustRemove(t, m, p.ID, q.ID)
}

// TestUnknownSysctlInUserNamespace checks that the daemon does not ignore a sysctl that does not
// exist in the namespaces of a pod with a user namespace.
func TestUnknownSysctlInUserNamespace(t *testing.T) {
	b, _ := fakeBed(t)
	b.cfg.PausePath = buildBinary(t, "../cmd/conmon")
	b.cfg.UserNamespaces = func(string) error { return nil }
	m := b.start()
	c := userPod("a")
	c.Linux.Sysctls = map[string]string{"net.ipv4.no_such_thing": "1"}
	if _, err := m.RunPod(t.Context(), c, ""); err == nil || !strings.Contains(err.Error(), "net/ipv4/no_such_thing") {
		t.Errorf("got error %v", err)
	}
	if pods := m.List(); len(pods) != 0 {
		t.Errorf("got pods %v, want none", pods)
	}
}
