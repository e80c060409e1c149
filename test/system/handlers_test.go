package system

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// crunScript calls crun in a mount namespace without the cgroup v2 hierarchy of a hybrid
// layout, because crun 1.8 refuses hybrid layouts. A tmpfs replaces the hierarchy,
// because crun creates directories on the mount point.
const crunScript = `#!/bin/sh
exec unshare --mount --propagation slave /bin/sh -c '
  umount -l /sys/fs/cgroup/unified 2>/dev/null && mount -t tmpfs tmpfs /sys/fs/cgroup/unified
  exec crun "$@"' crun "$@"
`

// handlersNode starts a daemon with runc, crun and runsc.
func handlersNode(t *testing.T, name string, net byte) *node {
	t.Helper()
	if _, err := exec.LookPath("runsc"); err != nil {
		t.Fatalf("find the runtime runsc: %v: run make deps", err)
	}
	return newNodeWith(t, name, net, runscConfig+crunConfig(t, name))
}

// crunConfig returns the configuration of a handler with crun for a node.
func crunConfig(t *testing.T, name string) string {
	t.Helper()
	if _, err := exec.LookPath("crun"); err != nil {
		t.Fatalf("find the runtime crun: %v: run make deps", err)
	}
	// The processes have the name of the script.
	script := filepath.Join(suite.dir, name+"-bin", "crun")
	if err := os.Mkdir(filepath.Dir(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, []byte(crunScript), 0o755); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("[runtimes.crun]\npath = %q\n", script)
}

var handlers = []string{"crun", "runc", "runsc"}

func TestHandlersOnOneNode(t *testing.T) {
	n := handlersNode(t, "handlers", 181)
	pods := make(map[string]*pod)
	for _, h := range append(handlers, "") {
		pods[h] = n.runPodFor(t, h, podConfig("side"+h))
		st, err := n.RuntimeService.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: pods[h].ID})
		if err != nil || st.GetStatus().GetRuntimeHandler() != h {
			t.Errorf("status of a pod for handler %q: got handler %q (error %v), want %q", h, st.GetStatus().GetRuntimeHandler(), err, h)
		}
	}
	for h, p := range pods {
		t.Run("handler "+h, func(t *testing.T) {
			n := *n
			n.t = t
			n.checkLifeCycle(t, p, h)
		})
	}
}

// checkLifeCycle runs containers with a handler.
func (n *node) checkLifeCycle(t *testing.T, p *pod, handler string) {
	id := n.run(t, p, "c", "sh", "-c", "echo out; echo err >&2; trap 'echo bye; exit 4' TERM; while :; do sleep 0.1; done")
	if got := n.Exec(t, id, "sh", "-c", "hostname; echo $PPID"); got != p.Config.GetHostname()+"\n0" {
		t.Errorf("exec: got %q, want %q and 0", got, p.Config.GetHostname())
	}
	r, err := n.RuntimeService.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: id, Cmd: []string{"sh", "-c", "echo o; echo e >&2; exit 5"}})
	if err != nil || r.GetExitCode() != 5 || string(r.GetStdout()) != "o\n" || string(r.GetStderr()) != "e\n" {
		t.Errorf("exec: got %+v (error %v), want exit code 5, stdout \"o\\n\", stderr \"e\\n\"", r, err)
	}
	if _, err := n.RuntimeService.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: id, Cmd: []string{"/no/such"}}); err == nil || !strings.Contains(err.Error(), "/no/such") {
		t.Errorf("exec of a missing program: got error %v, want one that names the program", err)
	}
	_, err = n.RuntimeService.ExecSync(t.Context(), &cri.ExecSyncRequest{ContainerId: id, Cmd: []string{"sh", "-c", "sleep 1001 & sleep 1000"}, Timeout: 1})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("exec of a command that reaches its timeout: got error %v, want DeadlineExceeded", err)
	}
	if got := n.Exec(t, id, "ps"); strings.Contains(got, "sleep 100") {
		t.Errorf("processes after the timeout of the command: got\n%s\nwant no sleep", got)
	}
	// No process of the command remains that would delay the exit of the container.
	for end := time.Now().Add(harness.Patience(3 * time.Second)); len(zombies(t, n.Pid())) > 0; time.Sleep(10 * time.Millisecond) {
		// The daemon looks for orphans after five seconds, so the test waits.
		if time.Now().After(end) {
			t.Errorf("zombies of the daemon: got %v, want none", zombies(t, n.Pid()))
			break
		}
	}
	n.updateUnder(t, id, handler)
	if _, err := n.RuntimeService.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: id, Timeout: harness.PatienceSeconds(20)}); err != nil {
		t.Fatal(err)
	}
	if s := n.ContainerStatus(t, id); s.GetExitCode() != 4 || s.GetReason() != "Error" {
		t.Errorf("exit: got code %d, reason %s, want 4, Error", s.GetExitCode(), s.GetReason())
	}
	lines := logLines(t, p, "c")
	if slices.Sort(lines); !slices.Equal(lines, []string{"bye", "err", "out"}) {
		t.Errorf("log: got %q, want bye, err and out", lines)
	}
	for _, want := range []int32{0, 255} {
		c := n.run(t, p, fmt.Sprint("exit", want), "sh", "-c", fmt.Sprint("exit ", want))
		if s := n.WaitExited(t, c); s.GetExitCode() != want {
			t.Errorf("exit: got code %d, reason %s; want code %d", s.GetExitCode(), s.GetReason(), want)
		}
	}
	n.checkExits(t, p)
}

// zombies returns the exited children of a process that were not reaped. It omits the
// processes of guests, which may take a while to exit.
func zombies(t *testing.T, parent int) (pids []int) {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		b, _ := os.ReadFile(list) // the thread may have ended
		for word := range strings.FieldsSeq(string(b)) {
			stat, err := os.ReadFile("/proc/" + word + "/stat")
			guest := strings.Contains(string(stat), " (runsc") || strings.Contains(string(stat), " (exe)")
			if err == nil && strings.Contains(string(stat), ") Z ") && !guest {
				pid, _ := strconv.Atoi(word)
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// checkExits checks unusual exits of containers.
func (n *node) checkExits(t *testing.T, p *pod) {
	t.Helper()
	stubborn := n.run(t, p, "stubborn", "sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done")
	for end := time.Now().Add(harness.Patience(30 * time.Second)); len(logLines(t, p, "stubborn")) == 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond) // until the script ignores the signal
	}
	if _, err := n.RuntimeService.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: stubborn, Timeout: 1}); err != nil {
		t.Error(err)
	}
	if s := n.ContainerStatus(t, stubborn); s.GetExitCode() != 137 {
		t.Errorf("exit code of a container that ignores its stop signal: got %d, want 137", s.GetExitCode())
	}
	created := n.CreateContainer(t, p, containerConfig(p, "created", busybox, "true"))
	if _, err := n.RuntimeService.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: created, Timeout: 10}); err != nil {
		t.Error(err)
	}
	if s := n.ContainerStatus(t, created); s.GetState() != cri.ContainerState_CONTAINER_EXITED || s.GetExitCode() != 137 {
		t.Errorf("container that was never started: got state %s, code %d, want exited, 137", s.GetState(), s.GetExitCode())
	}
	// Depending on the runtime, a missing program is an error of the creation or of the start.
	config := containerConfig(p, "missing", busybox, "/no/such/program")
	r, err := n.RuntimeService.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: config, SandboxConfig: p.Config})
	if err == nil {
		_, err = n.RuntimeService.StartContainer(t.Context(), &cri.StartContainerRequest{ContainerId: r.GetContainerId()})
	}
	if err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("missing program: got error %v, want one that names the program", err)
	}
}

func (n *node) updateUnder(t *testing.T, id, handler string) {
	t.Helper()
	_, err := n.RuntimeService.UpdateContainerResources(t.Context(), &cri.UpdateContainerResourcesRequest{
		ContainerId: id, Linux: &cri.LinuxContainerResources{CpuShares: 204},
	})
	switch {
	case handler == "runsc" && status.Code(err) != codes.Unimplemented:
		t.Errorf("update: got error %v, want Unimplemented", err)
	case handler != "runsc" && err != nil:
		t.Errorf("update: got error %v, want none", err)
	}
}

// TestStatusListsHandlers checks that Status lists each handler with the features of
// its runtime.
func TestStatusListsHandlers(t *testing.T) {
	n := handlersNode(t, "features", 182)
	st, err := n.RuntimeService.Status(t.Context(), &cri.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	recursive := make(map[string]bool)
	for _, h := range st.GetRuntimeHandlers() {
		recursive[h.GetName()] = h.GetFeatures().GetRecursiveReadOnlyMounts()
	}
	want := map[string]bool{"": true, "runc": true, "crun": true, "runsc": false}
	for name, rro := range want {
		if got, listed := recursive[name]; !listed || got != rro {
			t.Errorf("handler %q: listed %v, recursive read-only mounts %v, want %v", name, listed, got, rro)
		}
	}
	var info struct {
		Runtimes []struct {
			Name, Path, Version, Flaw string
			Default                   bool
		}
	}
	if err := json.Unmarshal([]byte(st.GetInfo()["config"]), &info); err != nil {
		t.Fatal(err)
	}
	for _, r := range info.Runtimes {
		if !strings.HasPrefix(r.Version, r.Name) || !filepath.IsAbs(r.Path) || r.Default != (r.Name == "runc") || r.Flaw != "" {
			t.Errorf("verbose status: got %+v, want a version, an absolute path, runc as the default and no flaw", r)
		}
	}
	if len(info.Runtimes) != len(handlers) {
		t.Errorf("runtimes in the verbose status: got %+v, want %d", info.Runtimes, len(handlers))
	}
}

// TestStatusReportsVulnerableRuntime checks that a runtime with known vulnerabilities is used, and
// is reported in the log and in the verbose status.
func TestStatusReportsVulnerableRuntime(t *testing.T) {
	script := filepath.Join(suite.dir, "old-runc")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho runc version 1.1.11\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	n := newNodeWith(t, "flawed", 183, fmt.Sprintf("[runtimes.old]\npath = %q\n", script))
	st, err := n.RuntimeService.Status(t.Context(), &cri.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	if info := st.GetInfo()["config"]; !strings.Contains(info, `"name":"old"`) || !strings.Contains(info, "CVE-2024-21626") {
		t.Errorf("verbose status: got %s, want CVE-2024-21626 for the runtime old", info)
	}
	log, err := os.ReadFile(n.LogPath())
	if err != nil || !strings.Contains(string(log), "CVE-2024-21626") {
		t.Errorf("log (error %v) has no CVE-2024-21626, want it", err)
	}
}

func TestUnknownHandlers(t *testing.T) {
	n := handlersNode(t, "nohandler", 184)
	_, err := n.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: podConfig("kata"), RuntimeHandler: "kata"})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), `"kata" is unknown; there are ["crun" "runc" "runsc"]`) {
		t.Errorf("run pod with an unknown handler: got error %v, want InvalidArgument with the known handlers", err)
	}
	for handler, want := range map[string]codes.Code{"": codes.OK, "runsc": codes.OK, "kata": codes.InvalidArgument} {
		spec := &cri.ImageSpec{Image: busybox, RuntimeHandler: handler}
		_, pull := n.ImageService.PullImage(t.Context(), &cri.PullImageRequest{Image: spec})
		st, stat := n.ImageService.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: spec})
		list, lists := n.ImageService.ListImages(t.Context(), &cri.ListImagesRequest{Filter: &cri.ImageFilter{Image: spec}})
		for name, err := range map[string]error{"pull": pull, "status": stat, "list": lists} {
			if status.Code(err) != want || err != nil && !strings.Contains(err.Error(), `"kata" is unknown; there are ["crun" "runc" "runsc"]`) {
				t.Errorf("%s for %q: got error %v, want %s", name, handler, err, want)
			}
		}
		// The image is the same for all handlers.
		if want == codes.OK && (len(list.GetImages()) != 1 || st.GetImage().GetId() != list.GetImages()[0].GetId()) {
			t.Errorf("for %q: got status %v, list %v, want the same image in both", handler, st.GetImage(), list.GetImages())
		}
	}
	if _, err := n.ImageService.RemoveImage(t.Context(), &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: busybox, RuntimeHandler: "kata"}}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("remove image for an unknown handler: got error %v, want InvalidArgument", err)
	}
	p := n.RunPod(t, podConfig("image"))
	config := containerConfig(p, "c", busybox, "true")
	config.Image.RuntimeHandler = "kata"
	_, err = n.RuntimeService.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: config, SandboxConfig: p.Config})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "config.image.runtime_handler") {
		t.Errorf("create container with an unknown handler: got error %v, want InvalidArgument with config.image.runtime_handler", err)
	}
}
