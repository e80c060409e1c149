package system

import (
	"encoding/json"
	"os"
	"os/exec"
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

// noCheckpoints returns the reason in the verbose Status why a handler cannot checkpoint, or "".
func (n *node) noCheckpoints(t *testing.T, handler string) string {
	t.Helper()
	n.waitChecked(t)
	st, err := n.RuntimeService.Status(t.Context(), &cri.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		Runtimes []struct{ Name, NoCheckpoints string }
	}
	if err := json.Unmarshal([]byte(st.GetInfo()["config"]), &info); err != nil {
		t.Fatal(err)
	}
	for _, h := range info.Runtimes {
		if h.Name == handler {
			return h.NoCheckpoints
		}
	}
	t.Fatalf("the status has no handler %q: %s", handler, st.GetInfo()["config"])
	return ""
}

// TestCheckpointWithCrun checks that Status and CheckpointContainer report that the crun of the host was built without
// CRIU. A crun with CRIU makes a checkpoint and restores it, unless the library that crun loads is not installed.
func TestCheckpointWithCrun(t *testing.T) {
	needCRIU(t)
	n := newNodeWith(t, "ckptcrun", 162, crunConfig(t, "ckptcrun"))
	version, err := exec.Command("crun", "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	p := n.runPodFor(t, "crun", podConfig("ckptcrun"))
	id := n.run(t, p, "count", "sh", "-c", counter)
	waitFor(t, "the counter", func() bool { return len(logLines(t, p, "count")) > 3 })
	dir := t.TempDir()
	location := filepath.Join(dir, "a.tar")
	reason, err := n.noCheckpoints(t, "crun"), n.checkpoint(t, id, location, time.Minute)
	switch {
	case !strings.Contains(string(version), "+CRIU"):
		if !strings.Contains(reason, "does not support checkpoints") {
			t.Errorf("Status: got the reason %q", reason)
		}
		if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "unknown method CheckpointContainer") || !strings.Contains(err.Error(), reason) {
			t.Errorf("crun without CRIU: got %v, want Unimplemented with the reason of the Status, %q", err, reason)
		}
		n.noTraces(t, dir)
	case reason != "":
		t.Errorf("crun with CRIU: Status has the reason %q", reason)
	case err != nil && strings.Contains(err.Error(), "libcriu"):
		t.Logf("crun cannot load its library: %v", err)
		n.noTraces(t, dir)
	case err != nil:
		t.Errorf("crun with CRIU: %v", err)
	default:
		n.noTraces(t, dir, "a.tar")
		if files := readArchive(t, location); files["checkpoint/core-1.img"] == "" || files["checkpoint/descriptors.json"] == "" {
			t.Error("the archive is not complete")
		}
	}
	n.counts(t, p, id, "count")
	if err == nil {
		n.restoreWithCrun(t, p, id, location)
	}
	if reason := n.noCheckpoints(t, "runc"); reason != "" {
		t.Errorf("runc: Status has the reason %q", reason)
	}
}

// restoreWithCrun replaces the container count of a pod with a container from its archive.
func (n *node) restoreWithCrun(t *testing.T, p *pod, id, location string) {
	t.Helper()
	n.writeFile(t, "config.toml.d/50-checkpoint.toml", "[checkpoint]\nrestore_from_archives = true\n")
	if code, _, stderr := n.command(t, "reload"); code != 0 {
		t.Fatalf("reload: %s", stderr)
	}
	if _, err := n.RuntimeService.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: id}); err != nil {
		t.Fatal(err)
	}
	before := len(logLines(t, p, "count"))
	c := containerConfig(p, "count", busybox, "sh", "-c", counter)
	c.Image.Image, c.Metadata.Attempt = location, 1
	r, err := n.RuntimeService.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: c, SandboxConfig: p.Config})
	if err != nil {
		t.Fatal(err)
	}
	n.StartContainer(t, r.GetContainerId())
	n.countsOn(t, p, before)
}

// TestCheckpointRefusesNamespaces checks that containers in namespaces that a checkpoint cannot contain are refused
// before anything happens.
func TestCheckpointRefusesNamespaces(t *testing.T) {
	needCRIU(t)
	n := newNode(t, "ckptns", 163)
	dir := t.TempDir()
	refused := func(t *testing.T, id, says string) {
		t.Helper()
		err := n.checkpoint(t, id, filepath.Join(dir, "a.tar"), time.Minute)
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want FailedPrecondition with %q", err, says)
		}
		n.noTraces(t, dir)
	}
	withPID := func(p *pod, name string, mode cri.NamespaceMode, target string) string {
		c := containerConfig(p, name, busybox, "sh", "-c", counter)
		c.Linux.SecurityContext = &cri.LinuxContainerSecurityContext{NamespaceOptions: &cri.NamespaceOption{Pid: mode, TargetId: target}}
		return n.RunContainer(t, p, c)
	}
	t.Run("target", func(t *testing.T) {
		p := n.RunPod(t, podConfig("ckpttarget"))
		target := n.run(t, p, "target", "sleep", "1000")
		debug := withPID(p, "debug", cri.NamespaceMode_TARGET, target)
		refused(t, debug, "TARGET")
		n.counts(t, p, debug, "debug")
	})
	t.Run("node", func(t *testing.T) {
		config := podConfig("ckptnode")
		config.Linux.SecurityContext = &cri.LinuxSandboxSecurityContext{NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_NODE}}
		p := n.RunPod(t, config)
		id := withPID(p, "c", cri.NamespaceMode_NODE, "")
		refused(t, id, "NODE")
		n.counts(t, p, id, "c")
	})
	t.Run("user", func(t *testing.T) {
		n.needUserNamespaces(t)
		p := n.RunPod(t, userPodConfig("ckptuser"))
		c := containerConfig(p, "c", busybox, "sh", "-c", counter)
		c.Linux.SecurityContext.NamespaceOptions = p.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()
		id := n.RunContainer(t, p, c)
		refused(t, id, "user namespace")
		n.counts(t, p, id, "c")
	})
}

// TestRestoreListeningSockets restores a web server with two processes, shared memory and a listening TCP socket in a
// pod with another address.
func TestRestoreListeningSockets(t *testing.T) {
	needCRIU(t)
	n := newNode(t, "rstnginx", 164)
	n.Pull(t, nginx)
	p := n.RunPod(t, podConfig("rstnginx"))
	web, client := containerConfig(p, "web", nginx), containerConfig(p, "client", busybox, "sleep", "100000")
	if !hasSysResource(t) {
		// The workers of nginx belong to the user nobody. Without CAP_SYS_RESOURCE, CRIU cannot read their limits.
		other := n.RunPod(t, podConfig("rstnginx2"))
		id := n.RunContainer(t, other, web)
		waitFor(t, "two processes", func() bool { return strings.Count(n.Exec(t, id, "ps"), "nginx") > 1 })
		dir := t.TempDir()
		err := n.checkpoint(t, id, filepath.Join(dir, "a.tar"), time.Minute)
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "rlimit") {
			t.Errorf("without CAP_SYS_RESOURCE: got %v, want FailedPrecondition with the reason of CRIU", err)
		}
		n.noTraces(t, dir)
		n.RemovePod(t, other.ID)
		web.Command = []string{"sh", "-c", "sed -i 's/^user .*/user root;/' /etc/nginx/nginx.conf && exec nginx -g 'daemon off;'"}
	}
	id, clientID := n.RunContainer(t, p, web), n.RunContainer(t, p, client)
	serves := func(clientID string) {
		t.Helper()
		waitFor(t, "the page", func() bool {
			r, err := n.RuntimeService.ExecSync(t.Context(), &cri.ExecSyncRequest{
				ContainerId: clientID, Cmd: []string{"wget", "-q", "-O-", "http://127.0.0.1/"}, Timeout: 60,
			})
			return err == nil && r.GetExitCode() == 0 && strings.Contains(string(r.GetStdout()), "nginx")
		})
	}
	serves(clientID)
	s := n.save(t, p, []*cri.ContainerConfig{web, client}, id, clientID)
	r, ids := n.mustRestore(t, s)
	n.startRestored(t, ids["client"])
	n.startRestored(t, ids["web"])
	serves(ids["client"])
	if got := n.Exec(t, ids["client"], "wget", "-q", "-O-", "http://"+n.podIPs(t, r.ID)[0]+"/"); !strings.Contains(got, "nginx") {
		t.Errorf("the page at the address of the pod: got %q", got)
	}
	n.RemovePod(t, r.ID)
}

// hasSysResource reports whether the test, and so the daemon, has CAP_SYS_RESOURCE.
func hasSysResource(t *testing.T) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return set&(1<<unix.CAP_SYS_RESOURCE) != 0
		}
	}
	t.Fatal("/proc/self/status has no CapEff")
	return false
}
