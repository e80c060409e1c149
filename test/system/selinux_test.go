package system

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// needSELinux skips a test on hosts without SELinux. It fails if SELinux is not enforcing although the kernel
// command line asks for SELinux, and if the policy is permissive.
func needSELinux(t *testing.T) {
	t.Helper()
	enforce, err := os.ReadFile("/sys/fs/selinux/enforce")
	if err != nil {
		cmdline, _ := os.ReadFile("/proc/cmdline")
		if strings.Contains(string(cmdline), "security=selinux") {
			t.Fatalf("the kernel command line enables SELinux, but SELinux is not enabled: %v", err)
		}
		t.Skip("SELinux is not enabled on this host")
	}
	if strings.TrimSpace(string(enforce)) != "1" {
		t.Fatal("SELinux is permissive; these tests need enforcing mode")
	}
}

// selinuxNode starts a daemon whose handlers runc and crun both work.
func selinuxNode(t *testing.T, name string, net byte) *node {
	t.Helper()
	needSELinux(t)
	n := newNodeWith(t, name, net, "[runtimes.crun]\npath = \"/usr/bin/crun\"\n")
	// crun keeps the seccomp filter of its first container, which is no leak.
	p := n.runPodFor(t, "crun", podConfig("first-crun"))
	n.run(t, p, "first", "true")
	n.RemovePod(t, p.ID)
	n.takeBaseline(t)
	return n
}

// selinuxHandlers are the runtime handlers of selinuxNode.
var selinuxHandlers = []string{"runc", "crun"}

// confinedLabel matches the label of a confined process and captures its level.
var confinedLabel = regexp.MustCompile(`^system_u:system_r:container_t:(s0:c[0-9]+,c[0-9]+)$`)

// unconfinedLabel is the label of processes in privileged containers.
const unconfinedLabel = "system_u:system_r:spc_t:s0"

// privateLevel is the level of the files of unconfined containers.
const privateLevel = "s0:c1022,c1023"

// processLabel returns the label of a container's first process.
func (n *node) processLabel(t *testing.T, id string) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/attr/current", n.ContainerPID(t, id)))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimRight(string(b), "\x00\n")
}

// execLabel returns the label of a process that ExecSync starts.
func (n *node) execLabel(t *testing.T, id string) string {
	t.Helper()
	return strings.TrimRight(n.Exec(t, id, "cat", "/proc/self/attr/current"), "\x00\n")
}

// levelOf returns the level of a confined container and fails if the container has another label than
// confinedLabel.
func (n *node) levelOf(t *testing.T, id string) string {
	t.Helper()
	label := n.processLabel(t, id)
	m := confinedLabel.FindStringSubmatch(label)
	if m == nil {
		t.Fatalf("process label %q, want one like system_u:system_r:container_t:s0:c1,c2", label)
	}
	if got := n.execLabel(t, id); got != label {
		t.Errorf("a process of exec has the label %q, want the label of the container, %q", got, label)
	}
	return m[1]
}

// fileLabel returns the label of a file of the host.
func fileLabel(t *testing.T, path string) string {
	t.Helper()
	b := make([]byte, 256)
	size, err := unix.Lgetxattr(path, "security.selinux", b)
	if err != nil {
		t.Fatalf("label of %s: %v", path, err)
	}
	return strings.TrimRight(string(b[:size]), "\x00")
}

// insideLabel returns the label of a file in a container.
func (n *node) insideLabel(t *testing.T, id, path string) string {
	t.Helper()
	return fileLabel(t, fmt.Sprintf("/proc/%d/root%s", n.ContainerPID(t, id), path)) // root itself is a link, root/ is not
}

// filesHaveLevel checks the labels of files in a container.
func (n *node) filesHaveLevel(t *testing.T, id, level string, paths ...string) {
	t.Helper()
	want := "system_u:object_r:container_file_t:" + level
	for _, path := range paths {
		if got := n.insideLabel(t, id, path); got != want {
			t.Errorf("%s has the label %q, want %q", path, got, want)
		}
	}
}

// containerFiles are files of different mounts of every container.
var containerFiles = []string{
	"/", "/bin/busybox", "/new", "/dev", "/dev/pts", "/dev/mqueue", "/dev/shm", "/dev/shm/new",
	"/etc/hosts", "/etc/hostname", "/etc/resolv.conf",
}

// writeFiles writes the new files of containerFiles.
func (n *node) writeFiles(t *testing.T, id string) {
	t.Helper()
	n.Exec(t, id, "sh", "-c", "echo x >/new && echo x >/dev/shm/new && cat /new /dev/shm/new /etc/hosts /etc/hostname /etc/resolv.conf && echo >>/etc/hosts")
}

func TestSELinuxLabels(t *testing.T) {
	n := selinuxNode(t, "selabels", 225)
	for _, handler := range selinuxHandlers {
		t.Run(handler, func(t *testing.T) {
			levels := map[string]bool{}
			for _, name := range []string{"one", "two"} {
				p := n.runPodFor(t, handler, podConfig("selabels-"+handler+name))
				first, second := n.run(t, p, "first", "sleep", "1000"), n.run(t, p, "second", "sleep", "1000")
				level := n.levelOf(t, first)
				if got := n.levelOf(t, second); got != level {
					t.Errorf("level of the second container: got %q, want %q as the first", got, level)
				}
				n.writeFiles(t, first)
				n.filesHaveLevel(t, first, level, containerFiles...)
				levels[level] = true
			}
			if len(levels) != 2 {
				t.Errorf("levels of two pods: got %v, want two", levels)
			}
		})
	}
}

// TestSELinuxUserNamespace runs a pod whose root file system is mounted with mapped ids and a label with a comma.
func TestSELinuxUserNamespace(t *testing.T) {
	n := selinuxNode(t, "seuser", 226)
	n.needUserNamespaces(t)
	id := n.Pull(t, volumeImage)
	for _, handler := range selinuxHandlers {
		t.Run(handler, func(t *testing.T) {
			p := n.runPodFor(t, handler, userPodConfig("seuser-"+handler))
			config := containerConfig(p, "c", busybox, "sleep", "1000")
			config.Mounts = []*cri.Mount{imageMount(id, "", "/image")}
			config.Mounts[0].UidMappings, config.Mounts[0].GidMappings = idMappings(), idMappings()
			c := n.CreateContainer(t, p, config)
			n.StartContainer(t, c)
			level := n.levelOf(t, c)
			n.writeFiles(t, c)
			n.filesHaveLevel(t, c, level, append([]string{"/image", "/image/data/file"}, containerFiles...)...)
			if got := n.Exec(t, c, "stat", "-c", "%u", "/", "/bin/busybox", "/dev/shm", "/dev/mqueue", "/image/data/file"); got != "0\n0\n0\n0\n0" {
				t.Errorf("owners of files: got %q, want 0", got)
			}
		})
	}
}

func TestSELinuxUnconfined(t *testing.T) {
	n := selinuxNode(t, "seopen", 230)
	private := n.volumeOf(t, "host")
	for _, handler := range selinuxHandlers {
		for name, change := range map[string]func(*cri.PodSandboxConfig, *cri.LinuxContainerSecurityContext){
			"privileged": func(pc *cri.PodSandboxConfig, sc *cri.LinuxContainerSecurityContext) {
				pc.Linux.SecurityContext.Privileged, sc.Privileged = true, true
			},
			"privileged-options": func(pc *cri.PodSandboxConfig, sc *cri.LinuxContainerSecurityContext) {
				pc.Linux.SecurityContext.Privileged, sc.Privileged = true, true
				sc.SelinuxOptions = &cri.SELinuxOption{Level: "s0:c4,c5"}
			},
			"host-pid": func(pc *cri.PodSandboxConfig, sc *cri.LinuxContainerSecurityContext) {
				pc.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_NODE
			},
			"host-ipc": func(pc *cri.PodSandboxConfig, sc *cri.LinuxContainerSecurityContext) {
				pc.Linux.SecurityContext.NamespaceOptions.Ipc = cri.NamespaceMode_NODE
			},
		} {
			t.Run(handler+"/"+name, func(t *testing.T) {
				pc, sc := podConfig("seopen-"+handler+name), &cri.LinuxContainerSecurityContext{}
				change(pc, sc)
				p := n.runPodFor(t, handler, pc)
				config := containerConfig(p, "c", busybox, "sleep", "1000")
				config.Linux.SecurityContext.Privileged, config.Linux.SecurityContext.SelinuxOptions = sc.Privileged, sc.SelinuxOptions
				config.Mounts = []*cri.Mount{{HostPath: private, ContainerPath: "/v", SelinuxRelabel: true}}
				id := n.CreateContainer(t, p, config)
				n.StartContainer(t, id)
				for what, got := range map[string]string{"container": n.processLabel(t, id), "exec": n.execLabel(t, id)} {
					if got != unconfinedLabel {
						t.Errorf("label of %s: got %q, want %q", what, got, unconfinedLabel)
					}
				}
				n.filesHaveLevel(t, id, privateLevel, "/", "/bin/busybox")
				n.Exec(t, id, "sh", "-c", useVolume)
				if got := fileLabel(t, private); got != hostLabel {
					t.Errorf("label of the volume of an unconfined container: got %q, want %q", got, hostLabel)
				}
			})
		}
	}
}

// TestSELinuxHostNamespaces runs confined containers in namespaces of the host.
func TestSELinuxHostNamespaces(t *testing.T) {
	n := selinuxNode(t, "sehost", 231)
	pc := podConfig("sehost-net")
	pc.Hostname, pc.Linux.SecurityContext.NamespaceOptions.Network = "", cri.NamespaceMode_NODE
	n.levelOf(t, n.run(t, n.RunPod(t, pc), "net", "sleep", "1000"))

	pc = podConfig("sehost-pid")
	pc.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_NODE
	p := n.RunPod(t, pc)
	config := containerConfig(p, "pid", busybox, "sleep", "1000")
	config.Linux.SecurityContext.SelinuxOptions = &cri.SELinuxOption{Level: "s0:c4,c5"}
	id := n.CreateContainer(t, p, config)
	n.StartContainer(t, id)
	if got := n.levelOf(t, id); got != "s0:c4,c5" {
		t.Errorf("level: got %q, want s0:c4,c5 of the request", got)
	}
}

func TestSELinuxOptions(t *testing.T) {
	n := selinuxNode(t, "seopt", 232)
	const level = "s0:c11,c12"
	pc := podConfig("seopt")
	pc.Linux.SecurityContext.SelinuxOptions = &cri.SELinuxOption{User: "system_u", Role: "system_r", Type: "container_t", Level: level}
	p := n.RunPod(t, pc)
	id := n.run(t, p, "pod", "sleep", "1000")
	if got := n.levelOf(t, id); got != level {
		t.Errorf("level: got %q, want %q of the pod", got, level)
	}
	n.writeFiles(t, id)
	n.filesHaveLevel(t, id, level, containerFiles...)
	for name, tc := range map[string]struct {
		options *cri.SELinuxOption
		process string
		files   string
	}{
		"level": {&cri.SELinuxOption{Level: "s0:c21,c22"}, "system_u:system_r:container_t:s0:c21,c22", "s0:c21,c22"},
		"range": {&cri.SELinuxOption{Level: "s0:c21.c23"}, "system_u:system_r:container_t:s0:c21.c23", "s0:c21.c23"},
		"type":  {&cri.SELinuxOption{Type: "spc_t"}, "system_u:system_r:spc_t:" + level, level},
		"alias": {&cri.SELinuxOption{User: "system_u", Role: "system_r", Type: "svirt_lxc_net_t", Level: "s0:c4,c5"}, "system_u:system_r:container_t:s0:c4,c5", "s0:c4,c5"},
	} {
		config := containerConfig(p, name, busybox, "sleep", "1000")
		config.Linux.SecurityContext.SelinuxOptions = tc.options
		id := n.CreateContainer(t, p, config)
		n.StartContainer(t, id)
		for what, got := range map[string]string{"container": n.processLabel(t, id), "exec": n.execLabel(t, id)} {
			if got != tc.process {
				t.Errorf("%s: label of %s: got %q, want %q", name, what, got, tc.process)
			}
		}
		n.filesHaveLevel(t, id, tc.files, "/", "/bin/busybox")
	}
}

func TestSELinuxRefused(t *testing.T) {
	n := selinuxNode(t, "serefuse", 233)
	p := n.RunPod(t, podConfig("serefuse"))
	privileged := podConfig("serefuse-privileged")
	privileged.Linux.SecurityContext.Privileged = true
	open := n.RunPod(t, privileged)
	for name, options := range map[string]*cri.SELinuxOption{
		"blank": {Type: "a b"}, "colon": {User: "a:b"}, "quote": {Level: `s0"`}, "no-level": {Level: "s0,c4,c5"},
		"no-type": {Type: "criserver_unknown_t"}, "no-user": {User: "criserver_unknown_u"}, "category": {Level: "s0:c5000"},
		"file-type": {Type: "container_file_t", Role: "system_r"},
	} {
		pc := podConfig("serefuse-" + name)
		pc.Linux.SecurityContext.SelinuxOptions = options
		r, err := n.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: pc})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "selinux_options") {
			t.Errorf("run pod with %s: got pod %q (error %v), want InvalidArgument with selinux_options", name, r.GetPodSandboxId(), err)
		}
		for _, p := range []*pod{p, open} {
			config := containerConfig(p, name, busybox, "true")
			config.Linux.SecurityContext.SelinuxOptions = options
			config.Linux.SecurityContext.Privileged = p == open
			if msg := n.refused(t, p, config, codes.InvalidArgument); !strings.Contains(msg, "selinux_options") {
				t.Errorf("create container with %s: got error %q, want selinux_options", name, msg)
			}
		}
	}
}

// TestSELinuxRestart checks that a daemon keeps the levels of the pods of an earlier daemon.
func TestSELinuxRestart(t *testing.T) {
	n := selinuxNode(t, "serestart", 234)
	p := n.RunPod(t, podConfig("serestart"))
	first := n.run(t, p, "first", "sleep", "1000")
	level := n.levelOf(t, first)
	n.Kill()
	n.restart(t)
	if got := n.levelOf(t, first); got != level {
		t.Errorf("level of the container after the restart: got %q, want %q", got, level)
	}
	second := n.run(t, p, "second", "sleep", "1000")
	if got := n.levelOf(t, second); got != level {
		t.Errorf("level of a new container of the pod: got %q, want %q", got, level)
	}
	n.writeFiles(t, second)
	levels := []string{level}
	for i := range 4 {
		q := n.RunPod(t, podConfig(fmt.Sprint("serestart-", i)))
		got := n.levelOf(t, n.run(t, q, "c", "sleep", "1000"))
		if slices.Contains(levels, got) {
			t.Errorf("level of a new pod: got %q, want none of %q", got, levels)
		}
		levels = append(levels, got)
	}
	if _, err := n.RuntimeService.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: first, Timeout: harness.PatienceSeconds(5)}); err != nil {
		t.Error(err)
	}
}

// TestSELinuxStreams checks that confined containers can use the streams of the monitor: pipes, a
// terminal and a log.
func TestSELinuxStreams(t *testing.T) {
	n := selinuxNode(t, "sestream", 235)
	for _, handler := range selinuxHandlers {
		p := n.runPodFor(t, handler, podConfig("sestream-"+handler))
		config := containerConfig(p, "tty", busybox, "sh", "-c", "tty && cat /proc/self/attr/current && echo end")
		config.Tty, config.Stdin = true, true
		id := n.CreateContainer(t, p, config)
		n.StartContainer(t, id)
		if s := n.WaitExited(t, id); s.GetExitCode() != 0 {
			t.Errorf("%s: exit code of a container with a terminal: got %d, want 0", handler, s.GetExitCode())
		}
		b, err := os.ReadFile(filepath.Join(p.Config.GetLogDirectory(), "tty.log"))
		if err != nil || !strings.Contains(string(b), "/dev/pts/0") || !strings.Contains(string(b), "container_t") || !strings.Contains(string(b), "end") {
			t.Errorf("%s: log: got %q (error %v), want the terminal, the label and end", handler, b, err)
		}
		id = n.run(t, p, "term", "sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done")
		waitFor(t, "the log", func() bool { return slices.Equal(logLines(t, p, "term"), []string{"up"}) })
		if _, err := n.RuntimeService.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: id, Timeout: harness.PatienceSeconds(20)}); err != nil {
			t.Fatal(err)
		}
		if s := n.ContainerStatus(t, id); s.GetExitCode() != 3 {
			t.Errorf("%s: exit of the stopped container: got code %d, message %q, want code 3", handler, s.GetExitCode(), s.GetMessage())
		}
	}
}

// TestSELinuxSharedPID checks that the first process of a shared PID namespace has the label of the pod.
func TestSELinuxSharedPID(t *testing.T) {
	n := selinuxNode(t, "sepid", 236)
	for _, newConfig := range []func(string) *cri.PodSandboxConfig{podConfig, userPodConfig} {
		pc := newConfig("sepid")
		pc.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
		p := n.RunPod(t, pc)
		id := n.run(t, p, "c", "sleep", "1000")
		level := n.levelOf(t, id)
		if got := strings.TrimRight(n.Exec(t, id, "cat", "/proc/1/attr/current"), "\x00\n"); got != n.processLabel(t, id) {
			t.Errorf("label of process 1: got %q, want that of the container", got)
		}
		if got := n.Exec(t, id, "cat", "/proc/1/mountinfo"); !strings.Contains(got, `context="system_u:object_r:container_file_t:`+level+`"`) {
			t.Errorf("mounts of process 1: got\n%s\nwant a context with level %s", got, level)
		}
		n.RemovePod(t, p.ID)
	}
}
