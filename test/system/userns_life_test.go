package system

import (
	"context"
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
	"k8s.io/client-go/tools/remotecommand"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

func TestUserNamespaceRecovery(t *testing.T) {
	n := newNode(t, "unsr", 87)
	n.needUserNamespaces(t)
	p := n.RunPod(t, userPodConfig("recovery"))
	shared := userPodConfig("recovery-shared")
	shared.Linux.SecurityContext.NamespaceOptions.Pid = cri.NamespaceMode_POD
	q := n.RunPod(t, shared)
	id, other := n.run(t, p, "main", "sleep", "1000"), n.run(t, q, "main", "sleep", "1000")

	for _, end := range []func(){func() {
		if err := n.Stop(); err != nil {
			t.Fatalf("stop the daemon: %v", err)
		}
	}, n.Kill} {
		end()
		n.restart(t)
		n.needUserNamespaces(t)
		for _, pod := range []*pod{p, q} {
			r, err := n.RuntimeService.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: pod.ID})
			if err != nil || r.GetStatus().GetState() != cri.PodSandboxState_SANDBOX_READY {
				t.Fatalf("pod after the restart: got %v (error %v), want it ready", r.GetStatus(), err)
			}
			if o := r.GetStatus().GetLinux().GetNamespaces().GetOptions().GetUsernsOptions(); o.GetMode() != cri.NamespaceMode_POD || len(o.GetUids()) != 1 {
				t.Errorf("userns_options in the status: got %v, want mode POD and one uid mapping", o)
			}
		}
		for _, c := range []string{id, other} {
			if got := n.Exec(t, c, "sh", "-c", "echo x > /dev/stdout; id -u"); got != "x\n0" {
				t.Errorf("exec after the restart: got %q, want \"x\\n0\"", got)
			}
		}
	}
	// A new container joins the namespace, too.
	later := n.run(t, p, "later", "cat", "/proc/self/uid_map")
	n.WaitExited(t, later)
	if got := strings.Join(logLines(t, p, "later"), ""); !strings.Contains(got, strconv.Itoa(firstID)) {
		t.Errorf("uid_map of a container created after the restart: got %q, want host ID %d", got, firstID)
	}
}

func TestUserNamespaceKillDuringRunPodSandbox(t *testing.T) {
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
			_, _ = n.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config})
		}()
		// Each kill is at another moment. Only every second pod has a PID namespace.
		wanted := []string{"", "user", "net", "pid", "uts", ""}[i]
		found := false
		for end := time.Now().Add(harness.Patience(10 * time.Second)); !found && time.Now().Before(end); {
			paths, _ := filepath.Glob(filepath.Join(n.Dir, "run", "ns", "*", wanted))
			found = len(paths) > 0
		}
		if !found {
			t.Errorf("pod %d: no namespace %q before the deadline", i, wanted)
		}
		n.Kill()
		<-done
		n.restart(t)
	}
	// close reports leaks.
}

func TestUserNamespaceInvalidRequests(t *testing.T) {
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
		"host pid":   {func(o *cri.NamespaceOption) { o.Pid = cri.NamespaceMode_NODE }, "namespace_options.pid"},
		"host ipc":   {func(o *cri.NamespaceOption) { o.Ipc = cri.NamespaceMode_NODE }, "namespace_options.ipc"},
		"no root":    {func(o *cri.NamespaceOption) { o.UsernsOptions.Uids[0].ContainerId = 1 }, "container_id"},
		"zero":       {func(o *cri.NamespaceOption) { o.UsernsOptions.Uids[0].Length = 0 }, "length"},
		"other gids": {func(o *cri.NamespaceOption) { o.UsernsOptions.Gids[0].HostId++ }, "userns_options.gids"},
	} {
		c := userPodConfig("bad")
		tc.change(c.Linux.SecurityContext.NamespaceOptions)
		_, err := n.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: c})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: got error %v, want InvalidArgument with %q", name, err, tc.says)
		}
	}

	p, plain := n.RunPod(t, userPodConfig("good")), n.RunPod(t, podConfig("plain"))
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
	// A container without options has the options of the pod.
	id := n.CreateContainer(t, p, differs(p, nil))
	n.StartContainer(t, id)
	if s := n.WaitExited(t, id); s.GetExitCode() != 0 {
		t.Errorf("exit of a container without userns_options: got %v, want exit code 0", s)
	}
}

// TestUserNamespaceKillDuringCreates checks that a kill during the creation of containers
// leaks nothing, and that the pod can be used afterwards.
func TestUserNamespaceKillDuringCreates(t *testing.T) {
	n := newNode(t, "unsx", 164)
	n.needUserNamespaces(t)
	p := n.RunPod(t, userPodConfig("creates"))
	for i, wait := range []string{"record.json", "rootfs/bin", "config.json", "oci.log", "pid"} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = n.RuntimeService.CreateContainer(ctx, &cri.CreateContainerRequest{
				PodSandboxId: p.ID, SandboxConfig: p.Config, Config: containerConfig(p, fmt.Sprint("c", i), busybox, "sleep", "1000"),
			})
		}()
		for end := time.Now().Add(harness.Patience(2 * time.Second)); time.Now().Before(end); {
			if found, _ := filepath.Glob(filepath.Join(n.Dir, "run", "containers", "*", wait)); len(found) > 0 {
				break
			}
		}
		n.Kill()
		cancel()
		<-done
		n.restart(t)
		list, err := n.RuntimeService.ListContainers(t.Context(), &cri.ListContainersRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list.GetContainers() {
			if _, err := n.RuntimeService.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: c.GetId()}); err != nil {
				t.Error(err)
			}
		}
	}
	id := n.run(t, p, "main", "sleep", "1000")
	if got := n.Exec(t, id, "id", "-u"); got != "0" {
		t.Errorf("id -u: got %s, want 0", got)
	}
}

// TestUserNamespaceTrialRemains checks that a daemon cleans up a trial that was interrupted
// by a kill.
func TestUserNamespaceTrialRemains(t *testing.T) {
	n := newNode(t, "unst", 165)
	n.needUserNamespaces(t)
	if err := n.Stop(); err != nil {
		t.Fatalf("stop the daemon: %v", err)
	}
	name := "userns-" + strings.Repeat("ab", 32)
	bundle, storage := filepath.Join(n.Dir, "run", name), filepath.Join(n.Dir, "root", name)
	for _, dir := range []string{filepath.Join(bundle, "rootfs"), filepath.Join(storage, "upper")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("tmpfs", filepath.Join(bundle, "rootfs"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(n.Dir, "run", "userns-runc.json")); err != nil {
		t.Fatal(err)
	}
	n.restart(t)
	n.needUserNamespaces(t)
	for _, dir := range []string{bundle, storage} {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("stat %s after the start of the daemon: got error %v, want not exist", dir, err)
		}
	}
}

// TestUserNamespaceClosedDirectory checks that runc has no user namespaces while a directory denies access to the root
// file system, and has them afterwards.
func TestUserNamespaceClosedDirectory(t *testing.T) {
	needMappedTmpfs(t)
	n := makeNode("unscd")
	closed := filepath.Join(suite.dir, "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	n.Dir = filepath.Join(closed, "unscd")
	n.Network = n.Bridge("csunscd", "10.168.0.0/16")
	n.start(t)
	r, err := n.RuntimeService.Status(t.Context(), &cri.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range r.GetRuntimeHandlers() {
		if h.GetFeatures().GetUserNamespaces() && h.GetName() != "crun" { // newer versions of crun do not need access
			t.Errorf("handler %q reports user namespaces, want none in a closed directory", h.GetName())
		}
	}
	if info := fmt.Sprint(r.GetInfo()); !strings.Contains(info, "noUserNamespaces") || !strings.Contains(info, "permission denied") {
		t.Errorf("verbose status: got %s, want noUserNamespaces with permission denied", info)
	}
	if _, err := n.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: userPodConfig("closed")}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("run pod: got error %v, want FailedPrecondition", err)
	}
	if err := os.Chmod(closed, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := n.Stop(); err != nil {
		t.Fatalf("stop the daemon: %v", err)
	}
	n.restart(t)
	n.needUserNamespaces(t)
	p := n.RunPod(t, userPodConfig("open"))
	n.WaitExited(t, n.run(t, p, "main", "true"))
	n.RemovePod(t, p.ID)
	if err := n.mayKeep("userns-runc.json"); err != nil {
		t.Fatal(err)
	}
}

// mayKeep adds a file of the run directory to the baseline.
func (n *node) mayKeep(name string) error {
	path := filepath.Join(n.Dir, "run", name)
	n.before["file "+path] = path
	_, err := os.Stat(path)
	return err
}

func TestUserNamespaceStreams(t *testing.T) {
	n := newNode(t, "unsst", 166)
	n.needUserNamespaces(t)
	n.Pull(t, nginx)
	p := n.RunPod(t, userPodConfig("streams"))
	tty := containerConfig(p, "tty", busybox, "sh")
	tty.Tty, tty.Stdin = true, true
	shell := n.CreateContainer(t, p, tty)
	n.StartContainer(t, shell)
	web := n.CreateContainer(t, p, containerConfig(p, "web", nginx))
	n.StartContainer(t, web)
	for transport := range executors {
		t.Run(transport, func(t *testing.T) {
			n.terminal(t, transport, shell)
			var out text
			code, err := n.stream(t.Context(), t, transport, shell, remotecommand.StreamOptions{
				Stdin: strings.NewReader("hello"), Stdout: &out,
			}, "sh", "-c", "cat > /dev/stdout; id -u; exit 5")
			if err != nil || code != 5 || out.String() != "hello0\n" {
				t.Errorf("exec: got code %d, output %q (error %v), want code 5, output \"hello0\\n\"", code, out.String(), err)
			}
			r, err := n.RuntimeService.Attach(t.Context(), &cri.AttachRequest{ContainerId: shell, Stdin: true, Stdout: true, Tty: true})
			if err != nil {
				t.Fatal(err)
			}
			var seen text
			ctx, disconnect := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_, _ = join(ctx, transport, r.GetUrl(), remotecommand.StreamOptions{Stdin: strings.NewReader("echo att''ached $(id -u)\n"), Stdout: &seen, Tty: true})
			}()
			seen.wait(t, "attached 0")
			disconnect()
			<-ended
			waitFor(t, "the web server", func() bool {
				port, stop := n.forward(t, transport, p.ID, "80")
				got, err := get(t, port)
				_ = stop()
				return err == nil && got != ""
			})
		})
	}
	stats, err := n.RuntimeService.ListPodSandboxStats(t.Context(), &cri.ListPodSandboxStatsRequest{Filter: &cri.PodSandboxStatsFilter{Id: p.ID}})
	if err != nil || len(stats.GetStats()) != 1 || len(stats.GetStats()[0].GetLinux().GetContainers()) != 2 {
		t.Errorf("stats of the pod: got %v (error %v), want stats of two containers", stats, err)
	}
}

// TestUserNamespaceUnsupportedByHandler checks that Status reports a handler without user
// namespaces, and that the handler refuses only pods with user namespaces.
func TestUserNamespaceUnsupportedByHandler(t *testing.T) {
	n := makeNode("unsh")
	dir := filepath.Join(suite.dir, "handlers")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// One runtime reports no support, and the other one reports nothing and fails.
	runc := filepath.Join(suite.bin, "runc")
	scripts := map[string]string{
		"without": `case "$*" in *features) echo '{"ociVersionMin":"1.0.0","ociVersionMax":"1.1.0","linux":{"namespaces":["pid","mount"]}}';; *) exec ` + runc + ` "$@";; esac`,
		"failing": `case "$*" in *features) exit 1;; *userns-*) echo no >&2; exit 1;; *) exec ` + runc + ` "$@";; esac`,
	}
	for name, script := range scripts {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		n.Config += fmt.Sprintf("[runtimes.%s]\npath = %q\n", name, path)
	}
	n.Network = n.Bridge("csunsh", "10.167.0.0/16")
	n.start(t)
	n.needUserNamespaces(t)
	r, err := n.RuntimeService.Status(t.Context(), &cri.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, h := range r.GetRuntimeHandlers() {
		if _, mine := scripts[h.GetName()]; mine {
			seen++
			if h.GetFeatures().GetUserNamespaces() {
				t.Errorf("handler %s reports user namespaces, want none", h.GetName())
			}
		}
	}
	if seen != len(scripts) {
		t.Errorf("configured handlers in the status: got %d, want %d", seen, len(scripts))
	}
	for name := range scripts {
		_, err := n.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: userPodConfig(name), RuntimeHandler: name})
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "userns_options") || !strings.Contains(err.Error(), name) {
			t.Errorf("handler %s, pod with a user namespace: got error %v, want FailedPrecondition with userns_options", name, err)
		}
		p, err := n.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: podConfig(name), RuntimeHandler: name})
		if err != nil {
			t.Errorf("handler %s, pod without a user namespace: got error %v, want none", name, err)
			continue
		}
		n.RemovePod(t, p.GetPodSandboxId())
	}
}
