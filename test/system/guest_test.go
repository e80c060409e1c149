package system

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/client-go/tools/remotecommand"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// runscConfig makes gVisor use the network namespace of the pod. On new kernels the
// runsc of Debian 12 takes every network for the host's and refuses its own stack.
const runscConfig = "[runtimes.runsc]\noptions = [\"--network=host\"]\n"

const nginx12003 = "gcr.io/k8s-staging-cri-tools/hostnet-nginx-" + runtime.GOARCH + ":latest"

// newNodeWith is newNode with additional lines of configuration.
func newNodeWith(t *testing.T, name string, net byte, config string) *node {
	t.Helper()
	n := makeNode(name)
	n.t = t
	n.Config = config
	n.Network = n.Bridge("cs"+name, fmt.Sprintf("10.%d.0.0/16", net), fmt.Sprintf("fd00:%x::/64", net))
	n.start(t)
	return n
}

// runPodFor runs a pod with a runtime handler.
func (c *clients) runPodFor(t *testing.T, handler string, config *cri.PodSandboxConfig) *pod {
	t.Helper()
	r, err := c.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	if err != nil {
		t.Fatalf("run pod %s for %q: %v", config.GetMetadata().GetName(), handler, err)
	}
	return &pod{ID: r.GetPodSandboxId(), Config: config}
}

// TestGuestsNetwork checks that the containers of a pod share the loopback interface
// and the hostname of a guest, and that clients reach them at the pod's address and at
// the host port.
func TestGuestsNetwork(t *testing.T) {
	n := newNodeWith(t, "guestnet", 185, runscConfig)
	config := podConfig("guestnet")
	config.PortMappings = []*cri.PortMapping{{ContainerPort: 80, HostPort: 18085}}
	p := n.runPodFor(t, "runsc", config)
	for name, image := range map[string]string{"web": nginx, "web2": nginx12003} {
		n.Pull(t, image)
		n.StartContainer(t, n.CreateContainer(t, p, containerConfig(p, name, image)))
	}
	client := n.run(t, p, "client", "sleep", "1000")
	other := n.RunPod(t, podConfig("guestpeer"))
	peer := n.run(t, other, "peer", "sleep", "1000")
	n.fetches(t, client, "127.0.0.1", "80")
	n.fetches(t, client, "127.0.0.1", "12003")
	for _, ip := range n.podIPs(t, p.ID) {
		if !strings.Contains(ip, ":") { // nginx listens only on IPv4
			n.fetches(t, peer, ip, "80")
		}
	}
	if got, err := get(t, 18085); err != nil || !strings.Contains(got, "nginx") {
		t.Errorf("host port: got %q (error %v), want a page of nginx", got, err)
	}
	for transport := range executors {
		port, stop := n.forward(t, transport, p.ID, "80")
		if got, err := get(t, port); err != nil || !strings.Contains(got, "nginx") {
			t.Errorf("port forward over %s: got %q (error %v), want a page of nginx", transport, got, err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
	if got := n.Exec(t, client, "sh", "-c", "pgrep nginx | wc -l"); got != "0" {
		t.Errorf("processes of other containers in a container: got %s, want 0", got)
	}
}

// fetches waits until the server answers, because it may have just been started.
func (n *node) fetches(t *testing.T, id, host, port string) {
	t.Helper()
	fetch := "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc " + host + " " + port
	n.Exec(t, id, "timeout", "20", "sh", "-c", "until "+fetch+" | grep -q '200 OK'; do sleep 0.1; done")
}

func TestGuestsStreams(t *testing.T) {
	n := newNodeWith(t, "gueststreams", 186, runscConfig)
	p := n.runPodFor(t, "runsc", podConfig("gueststreams"))
	config := containerConfig(p, "main", busybox, "sh", "-c", "echo up; while read x; do echo got $x; done; exit 6")
	config.Stdin, config.StdinOnce = true, true
	id := n.CreateContainer(t, p, config)
	n.StartContainer(t, id)
	var stdout, stderr text
	code, err := n.stream(t.Context(), t, "WebSocket", id,
		remotecommand.StreamOptions{Stdin: strings.NewReader(strings.Repeat("x", 300_000)), Stdout: &stdout, Stderr: &stderr},
		"sh", "-c", "wc -c; echo err >&2; exit 3")
	if err != nil || code != 3 || stdout.String() != "300000\n" || stderr.String() != "err\n" {
		t.Errorf("exec: got code %d, stdout %q, stderr %q (error %v), want 3, \"300000\\n\" and \"err\\n\"", code, stdout.String(), stderr.String(), err)
	}
	var screen text
	code, err = n.stream(t.Context(), t, "SPDY", id, remotecommand.StreamOptions{Stdin: strings.NewReader("test -t 0 && echo te''rminal; exit 4\n"), Stdout: &screen, Tty: true}, "sh")
	if err != nil || code != 4 || !strings.Contains(screen.String(), "terminal") {
		t.Errorf("exec with a terminal: got code %d, output %q (error %v), want 4 and \"terminal\"", code, screen.String(), err)
	}
	r, err := n.RuntimeService.Attach(t.Context(), &cri.AttachRequest{ContainerId: id, Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	var out text
	if _, err := join(t.Context(), "SPDY", r.GetUrl(), remotecommand.StreamOptions{Stdin: strings.NewReader("hello\n"), Stdout: &out}); err != nil || !strings.Contains(out.String(), "got hello") {
		t.Errorf("attach: got %q (error %v), want \"got hello\"", out.String(), err)
	}
	if s := n.WaitExited(t, id); s.GetExitCode() != 6 {
		t.Errorf("exit code after the end of the input: got %d, want 6", s.GetExitCode())
	}
	terminal := containerConfig(p, "terminal", busybox, "sh", "-c", "test -t 0 && echo terminal; exit 7")
	terminal.Tty, terminal.Stdin = true, true
	id = n.CreateContainer(t, p, terminal)
	n.StartContainer(t, id)
	if s := n.WaitExited(t, id); s.GetExitCode() != 7 {
		t.Errorf("exit code of the container with a terminal: got %d, want 7", s.GetExitCode())
	}
	if got := strings.Join(logLines(t, p, "terminal"), "|"); !strings.HasPrefix(got, "terminal") {
		t.Errorf("log of the terminal: got %q, want it to begin with \"terminal\"", got)
	}
}

func TestGuestsStats(t *testing.T) {
	n := newNodeWith(t, "gueststats", 187, runscConfig)
	p := n.runPodFor(t, "runsc", podConfig("gueststats"))
	id := n.run(t, p, "busy", "sh", "-c", "while :; do :; done")
	deadline := time.Now().Add(harness.Patience(30 * time.Second))
	for {
		s := n.containerStats(t, id)
		if s.GetCpu().GetUsageCoreNanoSeconds().GetValue() > 100e6 && s.GetMemory().GetUsageBytes().GetValue() > 1<<20 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("stats of the container: got %v, want CPU time above 100 ms and memory above 1 MiB", s)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if _, err := n.RuntimeService.PodSandboxStats(t.Context(), &cri.PodSandboxStatsRequest{PodSandboxId: p.ID}); err != nil {
		t.Error(err)
	}
}

// TestGuestsAfterDaemonRestart checks that guests run while the daemon is restarted after
// a kill, and that the next daemon manages them.
func TestGuestsAfterDaemonRestart(t *testing.T) {
	n := newNodeWith(t, "guestlives", 188, runscConfig)
	p := n.runPodFor(t, "runsc", podConfig("guestlives"))
	running := n.run(t, p, "running", "sh", "-c", "i=0; while true; do echo $i; i=$((i+1)); sleep 0.01; done")
	exits := n.run(t, p, "exits", "sh", "-c", "sleep 1; exit 7")
	unmonitored := n.run(t, p, "unmonitored", "sh", "-c", "trap 'exit 8' TERM; while :; do sleep 0.1; done")
	created := n.CreateContainer(t, p, containerConfig(p, "created", busybox, "sh", "-c", "exit 9"))
	n.killMonitor(t, unmonitored)
	n.Kill()
	n.restart(t)
	if s := n.WaitExited(t, exits); s.GetExitCode() != 7 {
		t.Errorf("container that exited while no daemon ran: got code %d, message %s, want code 7", s.GetExitCode(), s.GetMessage())
	}
	n.Exec(t, running, "true")
	n.StartContainer(t, created)
	if s := n.WaitExited(t, created); s.GetExitCode() != 9 {
		t.Errorf("container that was started later: got code %d, want 9", s.GetExitCode())
	}
	for _, id := range []string{unmonitored, running} {
		if _, err := n.RuntimeService.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: id, Timeout: harness.PatienceSeconds(20)}); err != nil {
			t.Fatal(err)
		}
	}
	if s := n.ContainerStatus(t, unmonitored); s.GetExitCode() != 8 {
		t.Errorf("container whose monitor was killed: got code %d, message %s, want code 8", s.GetExitCode(), s.GetMessage())
	}
	if lines := logLines(t, p, "running"); len(lines) < 20 || lines[len(lines)-1] != strconv.Itoa(len(lines)-1) {
		t.Errorf("log: got %d lines, the last %q, want at least 20 without a gap", len(lines), lines[max(0, len(lines)-1):])
	}
	n.RemovePod(t, p.ID)
}

// killMonitor kills the monitor of a container.
func (n *node) killMonitor(t *testing.T, id string) {
	t.Helper()
	lists, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		b, _ := os.ReadFile(list)
		if string(b) != "conmon\x00monitor\x00"+id+"\x00" {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(list)))
		if err == nil {
			err = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("container %s has no monitor process", id)
}

// TestGuestExitMakesPodNotReady checks that a pod becomes not ready when its guest
// exits, so that the kubelet creates another pod.
func TestGuestExitMakesPodNotReady(t *testing.T) {
	n := newNodeWith(t, "guestends", 189, runscConfig)
	p := n.runPodFor(t, "runsc", podConfig("guestends"))
	id := n.run(t, p, "c", "sleep", "1000")
	verbose, err := n.RuntimeService.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	var info struct{ Pid int }
	if err := json.Unmarshal([]byte(verbose.GetInfo()["info"]), &info); err != nil || info.Pid <= 1 {
		t.Fatalf("pid in the verbose status: got %d (error %v), want a pid above 1", info.Pid, err)
	}
	if err := syscall.Kill(info.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if s := n.WaitExited(t, id); s.GetExitCode() == 0 {
		t.Errorf("exit code of the container: got 0, want another code")
	}
	for end := time.Now().Add(harness.Patience(30 * time.Second)); ; time.Sleep(20 * time.Millisecond) {
		st, err := n.RuntimeService.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: p.ID})
		if err != nil {
			t.Fatal(err)
		}
		if st.GetStatus().GetState() == cri.PodSandboxState_SANDBOX_NOTREADY {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the pod is still ready")
		}
	}
	if _, err := n.RuntimeService.CreateContainer(t.Context(), &cri.CreateContainerRequest{
		PodSandboxId: p.ID, Config: containerConfig(p, "again", busybox, "true"), SandboxConfig: p.Config,
	}); err == nil {
		t.Error("CreateContainer in a pod whose guest has exited succeeded, want an error")
	}
	again := podConfig("guestends")
	again.Metadata.Attempt = 1
	q := n.runPodFor(t, "runsc", again)
	if s := n.WaitExited(t, n.run(t, q, "c", "sh", "-c", "exit 3")); s.GetExitCode() != 3 {
		t.Errorf("exit code of a container in the next pod: got %d, want 3", s.GetExitCode())
	}
}

// TestGuestRefusesRequests checks that requests that a guest cannot satisfy are refused.
func TestGuestRefusesRequests(t *testing.T) {
	n := newNodeWith(t, "guestrefuse", 190, runscConfig)
	p := n.runPodFor(t, "runsc", podConfig("guestrefuse"))
	id := n.run(t, p, "c", "sleep", "1000")
	config := containerConfig(p, "target", busybox, "true")
	config.Linux.SecurityContext.NamespaceOptions = &cri.NamespaceOption{Pid: cri.NamespaceMode_TARGET, TargetId: id}
	_, err := n.RuntimeService.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: config, SandboxConfig: p.Config})
	if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), `"runsc" cannot join another container`) {
		t.Errorf("PID namespace of another container: got error %v, want Unimplemented", err)
	}
}

// TestGuestNetworkStack tests the network stack of gVisor. The test hides from runsc the
// file by which it takes the network of the pod for the host's.
func TestGuestNetworkStack(t *testing.T) {
	n := newNodeWith(t, "guestown", 191, "[runtimes.runsc]\noptions = [\"--network=sandbox\"]\n")
	p := n.runPodFor(t, "runsc", podConfig("guestown"))
	st, err := n.RuntimeService.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: p.ID, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	netns := filepath.Join(n.Dir, "run", "ns", p.ID, "net")
	// runsc looks for a file that older kernels had only in the host's network namespace.
	if out, err := exec.Command("nsenter", "--net="+netns, "mount", "-t", "tmpfs", "tmpfs", "/proc/sys/net/core").CombinedOutput(); err != nil {
		t.Fatalf("mount a tmpfs in the network namespace of the pod: %v: %s", err, out)
	}
	serve := "mkdir /www; echo hello >/www/index.html; busybox httpd -f -h /www -p "
	n.run(t, p, "web", "sh", "-c", serve+"8080")
	n.run(t, p, "local", "sh", "-c", serve+"127.0.0.1:8081")
	n.Pull(t, nginx)
	n.StartContainer(t, n.CreateContainer(t, p, containerConfig(p, "nginx", nginx)))
	n.fetches(t, n.run(t, p, "ready", "sleep", "1000"), "127.0.0.1", "80")
	client := n.run(t, p, "client", "sleep", "1000")
	n.fetches(t, client, "127.0.0.1", "8081")
	other := n.RunPod(t, podConfig("ownpeer"))
	n.fetches(t, n.run(t, other, "peer", "sleep", "1000"), st.GetStatus().GetNetwork().GetIp(), "8080")
	port, stop := n.forward(t, "SPDY", p.ID, "80")
	if got, err := get(t, port); err != nil || !strings.Contains(got, "nginx") {
		t.Errorf("port forward: got %q (error %v), want a page of nginx", got, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if out, err := exec.Command("nsenter", "--net="+netns, "umount", "/proc/sys/net/core").CombinedOutput(); err != nil {
		t.Fatalf("unmount the tmpfs in the network namespace of the pod: %v: %s", err, out)
	}
}

// TestGuestStartFailure checks that the error of a guest that does not start has the
// message of the runtime, and that nothing leaks and the pod is unchanged.
func TestGuestStartFailure(t *testing.T) {
	n := newNodeWith(t, "guestfails", 192, "[runtimes.runsc]\noptions = [\"--network=sandbox\"]\n")
	p := n.runPodFor(t, "runsc", podConfig("guestfails"))
	config := containerConfig(p, "c", busybox, "true")
	for range 2 { // the second attempt finds no remains of the first
		_, err := n.RuntimeService.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: p.ID, Config: config, SandboxConfig: p.Config})
		if err == nil {
			t.Skip("this combination of runsc and kernel works without --network=host")
		}
		if !strings.Contains(err.Error(), "cannot run with network enabled in root network namespace") {
			t.Errorf("create: got error %v, want the message of runsc", err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(n.Dir, "run", "guests", "*")); err != nil || len(left) > 0 {
		t.Errorf("files of guests: got %v (error %v), want none", left, err)
	}
	if st, err := n.RuntimeService.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: p.ID}); err != nil || st.GetStatus().GetState() != cri.PodSandboxState_SANDBOX_READY {
		t.Errorf("state of the pod: got %s (error %v), want ready", st.GetStatus().GetState(), err)
	}
}
