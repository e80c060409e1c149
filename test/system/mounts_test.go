package system

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// hostDir creates a directory of the host with files.
func hostDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// mountTmpfs mounts a tmpfs on the host until the end of the test.
func mountTmpfs(t *testing.T, dir string, flags uintptr) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
}

func bindMount(host, at string) *cri.Mount { return &cri.Mount{HostPath: host, ContainerPath: at} }

// with returns the mount after applying a change.
func with(m *cri.Mount, change func(*cri.Mount)) *cri.Mount {
	change(m)
	return m
}

func TestMountOptions(t *testing.T) {
	n := newNode(t, "mntopt", 203)
	st, err := n.RuntimeService.Status(t.Context(), &cri.StatusRequest{})
	if err != nil || !st.GetFeatures().GetMountOptions() {
		t.Fatalf("features: got %v (error %v), want mount options", st.GetFeatures(), err)
	}
	dir := hostDir(t, map[string]string{"run": "#!/bin/sh\necho ran\n"})
	strict := filepath.Join(t.TempDir(), "strict")
	mountTmpfs(t, strict, unix.MS_NOSUID|unix.MS_NOEXEC)
	p := n.RunPod(t, podConfig("mntopt"))
	config := containerConfig(p, "c", busybox, "sleep", "1000")
	options := func(o ...string) func(*cri.Mount) { return func(m *cri.Mount) { m.MountOptions = o } }
	config.Mounts = []*cri.Mount{
		bindMount(dir, "/plain"),
		with(bindMount(dir, "/restricted"), options("noexec", "nodev", "nosuid")),
		with(bindMount(dir, "/twice"), options("noexec", "noexec", "noatime")),
		with(bindMount(dir, "/ro"), options("ro")),
		bindMount(strict, "/strict"),
		with(bindMount(strict, "/stricter"), options("nodev")),
		with(bindMount(strict, "/readonly"), func(m *cri.Mount) { m.Readonly = true }),
	}
	c := n.CreateContainer(t, p, config)
	n.StartContainer(t, c)
	for target, want := range map[string]string{
		"/plain": "", "/restricted": "noexec nodev nosuid", "/twice": "noexec noatime", "/ro": "ro",
		// Restrictions of the host's mount remain.
		"/strict": "noexec nosuid", "/stricter": "noexec nosuid nodev", "/readonly": "noexec nosuid ro",
	} {
		got := n.mountOptions(t, c, target)
		for _, o := range []string{"noexec", "nodev", "nosuid", "ro", "noatime"} {
			if wanted := strings.Contains(" "+want+" ", " "+o+" "); got[o] != wanted {
				t.Errorf("%s: option %s: got %v in %v, want %v", target, o, got[o], got, wanted)
			}
		}
	}
	if got := n.Exec(t, c, "sh", "-c", "/plain/run; /restricted/run 2>/dev/null || echo no; touch /plain/x; touch /ro/x 2>/dev/null || echo no"); got != "ran\nno\nno" {
		t.Errorf("program and files on the mounts: got %q, want \"ran\\nno\\nno\"", got)
	}
	if m := n.ContainerStatus(t, c).GetMounts()[1]; len(m.GetMountOptions()) != 3 {
		t.Errorf("mount in the status: got %v, want three mount options", m)
	}
	for _, bad := range []string{"suid", "exec", "dev", "rw", "bind", "rshared", "size=1g", "", "noexec,suid", "context=system_u:object_r:x:s0"} {
		config := containerConfig(p, "bad", busybox, "true")
		config.Mounts = []*cri.Mount{with(bindMount(dir, "/d"), options("noexec", bad))}
		if msg := n.refused(t, p, config, codes.InvalidArgument); !strings.Contains(msg, "config.mounts[0]: mount_options") {
			t.Errorf("mount options %q: got error %q, want config.mounts[0]: mount_options", bad, msg)
		}
	}
}

func TestRecursiveReadOnly(t *testing.T) {
	n := newNode(t, "mntrro", 204)
	dir := t.TempDir()
	mountTmpfs(t, filepath.Join(dir, "sub"), 0)
	p := n.RunPod(t, podConfig("mntrro"))
	config := containerConfig(p, "c", busybox, "sleep", "1000")
	config.Mounts = []*cri.Mount{
		with(bindMount(dir, "/ro"), func(m *cri.Mount) { m.Readonly = true }),
		with(bindMount(dir, "/rro"), func(m *cri.Mount) { m.Readonly, m.RecursiveReadOnly = true, true }),
	}
	c := n.CreateContainer(t, p, config)
	n.StartContainer(t, c)
	script := "for f in /ro/x /ro/sub/x /rro/x /rro/sub/x; do touch $f 2>/dev/null && echo $f; done; true"
	if got := n.Exec(t, c, "sh", "-c", script); got != "/ro/sub/x" {
		t.Errorf("written files: got %q, want only /ro/sub/x", got)
	}
	for name, m := range map[string]*cri.Mount{
		"writable": with(bindMount(dir, "/d"), func(m *cri.Mount) { m.RecursiveReadOnly = true }),
		"slave": with(bindMount(dir, "/d"), func(m *cri.Mount) {
			m.Readonly, m.RecursiveReadOnly, m.Propagation = true, true, cri.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
		}),
	} {
		config := containerConfig(p, name, busybox, "true")
		config.Mounts = []*cri.Mount{m}
		if msg := n.refused(t, p, config, codes.InvalidArgument); !strings.Contains(msg, "recursive_read_only") {
			t.Errorf("%s: got error %s, want recursive_read_only", name, msg)
		}
	}
}

// TestMountsOverDefaultMounts mounts volumes over the default mounts of a container, and
// below each other.
func TestMountsOverDefaultMounts(t *testing.T) {
	n := newNode(t, "mntover", 205)
	dir := hostDir(t, map[string]string{"hosts": "of the request\n", "etc/own": "etc\n", "a/file": "a\n", "b/file": "b\n", "shm/x": "shm\n"})
	p := n.RunPod(t, podConfig("mntover"))
	config := containerConfig(p, "c", busybox, "sleep", "1000")
	config.Mounts = []*cri.Mount{
		bindMount(dir+"/b", "/data/inner/deep"), // listed before its parent
		bindMount(dir+"/a", "/data"),
		bindMount(dir+"/hosts", "/etc/hosts"),
		bindMount(dir+"/etc", "/etc"),
		bindMount(dir+"/shm", "/dev/shm"),
	}
	c := n.CreateContainer(t, p, config)
	n.StartContainer(t, c)
	for file, want := range map[string]string{
		"/data/file": "a", "/data/inner/deep/file": "b", "/etc/hosts": "of the request", "/etc/own": "etc", "/dev/shm/x": "shm",
		"/etc/hostname": "mntover",
	} {
		if got := n.Exec(t, c, "cat", file); got != want {
			t.Errorf("%s: got %q, want %q", file, got, want)
		}
	}
	if got := n.Exec(t, c, "cat", "/etc/resolv.conf"); !strings.Contains(got, "10.96.0.10") {
		t.Errorf("/etc/resolv.conf with a volume at /etc: got %q, want 10.96.0.10 of the pod", got)
	}
	readonly := containerConfig(p, "ro", busybox, "sleep", "1000")
	readonly.Mounts = []*cri.Mount{with(bindMount(dir+"/a", "/etc"), func(m *cri.Mount) { m.Readonly = true })}
	r := n.CreateContainer(t, p, readonly)
	n.StartContainer(t, r)
	if got := n.Exec(t, r, "ls", "/etc"); !strings.Contains(got, "file") || strings.Contains(got, "hosts") {
		t.Errorf("files of a read-only volume at /etc: got %q, want file and not hosts", got)
	}
}

func TestHostPaths(t *testing.T) {
	n := newNode(t, "mntpath", 206)
	dir := hostDir(t, map[string]string{"real/file": "real\n"})
	if err := os.Symlink(dir+"/real", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir+"/nowhere", dir+"/dangling"); err != nil {
		t.Fatal(err)
	}
	alone := filepath.Join(t.TempDir(), "alone")
	mountTmpfs(t, alone, 0)
	if err := unix.Mount("", alone, "", unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	p := n.RunPod(t, podConfig("mntpath"))
	config := containerConfig(p, "c", busybox, "sleep", "1000")
	config.Mounts = []*cri.Mount{bindMount(dir+"/link", "/link"), bindMount(dir+"/link/file", "/file"), bindMount(dir+"/new/dir", "/made")}
	config.Mounts[0].SelinuxRelabel = true // no effect on a host without SELinux
	c := n.CreateContainer(t, p, config)
	n.StartContainer(t, c)
	if got := n.Exec(t, c, "sh", "-c", "cat /link/file /file; touch /made/x"); got != "real\nreal" {
		t.Errorf("files on the mounts: got %q, want \"real\\nreal\"", got)
	}
	if _, err := os.Stat(dir + "/new/dir/x"); err != nil {
		t.Error(err)
	}
	for name, tc := range map[string]struct {
		m    *cri.Mount
		code codes.Code
		says string
	}{
		"dangling":            {bindMount(dir+"/dangling", "/d"), codes.InvalidArgument, "host_path"},
		"relative":            {bindMount("etc", "/d"), codes.InvalidArgument, "host_path"},
		"climbing":            {bindMount("/tmp/../etc", "/d"), codes.InvalidArgument, "host_path"},
		"none":                {bindMount("", "/d"), codes.InvalidArgument, "host_path"},
		"no target":           {bindMount(dir, ""), codes.InvalidArgument, "container_path"},
		"root":                {bindMount(dir, "/./"), codes.InvalidArgument, "container_path"},
		"in a file":           {bindMount(dir+"/real/file/x", "/d"), codes.InvalidArgument, "host_path"},
		"unknown propagation": {with(bindMount(dir, "/d"), func(m *cri.Mount) { m.Propagation = 7 }), codes.InvalidArgument, "propagation"},
		"not shared":          {with(bindMount(alone, "/d"), func(m *cri.Mount) { m.Propagation = cri.MountPropagation_PROPAGATION_BIDIRECTIONAL }), codes.FailedPrecondition, "not a shared mount"},
	} {
		config := containerConfig(p, strings.ReplaceAll(name, " ", "-"), busybox, "true")
		config.Mounts = []*cri.Mount{tc.m}
		if msg := n.refused(t, p, config, tc.code); !strings.Contains(msg, tc.says) {
			t.Errorf("%s: got error %s, want %q", name, msg, tc.says)
		}
	}
}

func TestMissingHostPathsRefused(t *testing.T) {
	n := makeNode("mntmiss")
	n.Config = "[container]\nmake_host_paths = false\n"
	n.Network = n.Bridge("csmntmiss", "10.207.0.0/16", "fd00:cf::/64")
	n.start(t)
	p := n.RunPod(t, podConfig("mntmiss"))
	missing := filepath.Join(t.TempDir(), "missing")
	config := containerConfig(p, "c", busybox, "true")
	config.Mounts = []*cri.Mount{bindMount(missing, "/d")}
	if msg := n.refused(t, p, config, codes.NotFound); !strings.Contains(msg, "config.mounts[0].host_path") {
		t.Error(msg)
	}
	if _, err := os.Stat(missing); err == nil {
		t.Errorf("host path %s exists after the refusal, want it missing", missing)
	}
}
