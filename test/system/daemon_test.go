package system

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
)

// infoField takes one string out of a verbose status.
func infoField(t *testing.T, info, key string) string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(info), &m); err != nil {
		t.Fatalf("verbose info: %v", err)
	}
	s, _ := m[key].(string)
	if s == "" {
		t.Fatalf("verbose info has no %q: %s", key, info)
	}
	return s
}

func TestTwoDaemonsDoNotMeet(t *testing.T) {
	a, b := newNode(t, "a", 66), newNode(t, "b", 67)
	a.mark(t) // the other one's bridge is no leak
	pa, pb := a.RunPod(t, podConfig("same")), b.RunPod(t, podConfig("same"))
	ca, cb := a.run(t, pa, "c", "sleep", "1000"), b.run(t, pb, "c", "sleep", "1000")
	if p, c := a.running(t); p != 1 || c != 1 {
		t.Errorf("one daemon sees %d pods and %d containers", p, c)
	}
	if _, err := a.RuntimeService.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: cb}); status.Code(err) != codes.NotFound {
		t.Errorf("a container of the other daemon: %v", err)
	}
	a.RemovePod(t, pa.ID)
	a.Kill()
	a.restart(t)
	b.Exec(t, cb, "true")
	if _, err := b.RuntimeService.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: ca}); status.Code(err) != codes.NotFound {
		t.Errorf("a container of the other daemon: %v", err)
	}
}

func TestASecondDaemonIsRefused(t *testing.T) {
	n := newNode(t, "second", 68)
	out, err := exec.Command(filepath.Join(world.bin, "criserver"), "--config", filepath.Join(n.Dir, "config.toml")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "in use by another daemon") {
		t.Errorf("a second daemon on the same directories: %v: %s", err, out)
	}
	n.RunPod(t, podConfig("still"))
}

func TestWithoutNetworkHostPodsWork(t *testing.T) {
	n := makeNode("nonet")
	n.start(t)
	st, err := n.RuntimeService.Status(t.Context(), &cri.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range st.GetStatus().GetConditions() {
		switch {
		case c.GetType() == cri.RuntimeReady && !c.GetStatus():
			t.Errorf("the runtime is not ready: %s", c.GetMessage())
		case c.GetType() == cri.NetworkReady && (c.GetStatus() || !strings.Contains(c.GetMessage(), filepath.Join(n.Dir, "cni"))):
			t.Errorf("the network's condition does not name the directory: %v", c)
		}
	}
	if _, err := n.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: podConfig("own")}); err == nil {
		t.Error("a pod with a network of its own was made without one")
	}
	config := podConfig("host")
	config.Hostname = ""
	config.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_NODE
	p := n.RunPod(t, config)
	id := n.run(t, p, "c", "sleep", "1000")
	// One of its own: those of earlier tests' pods go in the kernel's own time.
	wire(t, "", "probe0", "", "probe1")
	if seen := strings.Fields(n.Exec(t, id, "ls", "/sys/class/net")); !slices.Contains(seen, "probe0") {
		t.Errorf("the container sees the links %v, and not the host's", seen)
	}
}

func TestConfigurationErrorsEndTheStart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bad.toml")
	if err := os.WriteFile(file, []byte("[image]\nparalel_layers = 3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(world.bin, "criserver"), "--config", file).CombinedOutput()
	if err == nil || !strings.Contains(string(out), file+": image.paralel_layers: unknown key") {
		t.Errorf("got %v: %s", err, out)
	}
}

func TestSocketAndReadiness(t *testing.T) {
	// The address of a socket is short; a test's own directory may not be.
	dir, err := os.MkdirTemp(world.dir, "notify")
	if err != nil {
		t.Fatal(err)
	}
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "s"))
	told := func() string {
		t.Helper()
		b := make([]byte, 4096)
		if err := manager.SetReadDeadline(time.Now().Add(harness.Patience(10 * time.Second))); err != nil {
			t.Fatal(err)
		}
		for {
			n, err := manager.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			// While it starts, the daemon asks for time.
			if got := string(b[:n]); !strings.HasPrefix(got, "EXTEND_TIMEOUT_USEC=") {
				return got
			}
		}
	}
	n := makeNode("ready")
	n.start(t)
	if got := told(); got != "READY=1" {
		t.Errorf("at the start the service manager is told %q", got)
	}
	info, err := os.Stat(n.Socket())
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o660 {
		t.Errorf("the socket's mode is %o, want 660", info.Mode().Perm())
	}
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	if got := told(); got != "STOPPING=1" {
		t.Errorf("at the end it is told %q", got)
	}
	n.restart(t)
}
