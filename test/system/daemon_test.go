package system

import (
	"context"
	"encoding/json"
	"fmt"
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

// infoField returns a string of a verbose status.
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

func TestTwoDaemonsOnOneHost(t *testing.T) {
	a, b := newNode(t, "a", 66), newNode(t, "b", 67)
	a.takeBaseline(t) // the bridge of the other daemon is no leak
	pa, pb := a.RunPod(t, podConfig("same")), b.RunPod(t, podConfig("same"))
	ca, cb := a.run(t, pa, "c", "sleep", "1000"), b.run(t, pb, "c", "sleep", "1000")
	if p, c := a.running(t); p != 1 || c != 1 {
		t.Errorf("first daemon: got %d pods and %d containers, want one each", p, c)
	}
	if _, err := a.RuntimeService.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: cb}); status.Code(err) != codes.NotFound {
		t.Errorf("status of a container of the other daemon: got error %v, want NotFound", err)
	}
	a.RemovePod(t, pa.ID)
	a.Kill()
	a.restart(t)
	b.Exec(t, cb, "true")
	if _, err := b.RuntimeService.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: ca}); status.Code(err) != codes.NotFound {
		t.Errorf("status of a container of the other daemon: got error %v, want NotFound", err)
	}
}

func TestSecondDaemonOnSameDirectories(t *testing.T) {
	n := newNode(t, "second", 68)
	out, err := exec.Command(filepath.Join(suite.bin, "criserver"), "--config", filepath.Join(n.Dir, "config.toml")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "in use by another daemon") {
		t.Errorf("second daemon with the same directories: got error %v, output %s, want \"in use by another daemon\"", err, out)
	}
	n.RunPod(t, podConfig("still"))
}

func TestHostNetworkPodWithoutCNI(t *testing.T) {
	n := makeNode("nonet")
	n.start(t)
	st, err := n.RuntimeService.Status(t.Context(), &cri.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range st.GetStatus().GetConditions() {
		switch {
		case c.GetType() == cri.RuntimeReady && !c.GetStatus():
			t.Errorf("condition RuntimeReady: got %v, want true", c)
		case c.GetType() == cri.NetworkReady && (c.GetStatus() || !strings.Contains(c.GetMessage(), filepath.Join(n.Dir, "cni"))):
			t.Errorf("condition NetworkReady: got %v, want false with the CNI directory", c)
		}
	}
	if _, err := n.RuntimeService.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: podConfig("default-network")}); err == nil {
		t.Error("RunPodSandbox without a CNI network succeeded, want an error")
	}
	config := podConfig("host")
	config.Hostname = ""
	config.Linux.SecurityContext.NamespaceOptions.Network = cri.NamespaceMode_NODE
	p := n.RunPod(t, config)
	id := n.run(t, p, "c", "sleep", "1000")
	// The container of this test: the kernel may take a while to remove links of earlier pods.
	wire(t, "", "probe0", "", "probe1")
	if seen := strings.Fields(n.Exec(t, id, "ls", "/sys/class/net")); !slices.Contains(seen, "probe0") {
		t.Errorf("links in the container: got %v, want those of the host", seen)
	}
}

func TestInvalidConfigurationPreventsStart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bad.toml")
	if err := os.WriteFile(file, []byte("[image]\nparallel_layer = 3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(suite.bin, "criserver"), "--config", file).CombinedOutput()
	if err == nil || !strings.Contains(string(out), file+": image.parallel_layer: unknown key") {
		t.Errorf("daemon with an invalid configuration: got error %v, output %s, want the unknown key", err, out)
	}
}

// TestInvalidFilesPreventStart checks that the daemon does not start if a file that a key names cannot be used.
// Containers that need the file would otherwise fail later, or run without it.
func TestInvalidFilesPreventStart(t *testing.T) {
	n := makeNode("badfiles")
	n.start(t)
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	invalid := n.writeFile(t, "invalid/file.json", "{{ no format")
	n.writeFile(t, "invalid/file.yaml", "docker: [")
	for _, key := range []string{
		"image.registries_conf", "image.policy", "image.policy_dir", "image.registries_d", "image.auth_file", "cni.conf_template",
		"container.seccomp_profile", "container.privileged_seccomp_profile", "container.blockio_config_file", "container.rdt_config_file",
		"monitor.path", "tracing.tls_ca", "runtimes.runc.base_spec", "runtimes.runc.seccomp_profile",
	} {
		value := invalid
		if key == "image.policy_dir" || key == "image.registries_d" {
			value = filepath.Dir(invalid)
		}
		table, name := key[:strings.LastIndex(key, ".")], key[strings.LastIndex(key, ".")+1:]
		text := fmt.Sprintf("[%s]\n%s = %q\n", table, name, value)
		if key == "tracing.tls_ca" {
			text += "endpoint = \"127.0.0.1:4317\"\n"
		}
		drop := n.writeFile(t, "config.toml.d/invalid.toml", text)
		ctx, cancel := context.WithTimeout(t.Context(), harness.Patience(30*time.Second))
		out, err := exec.CommandContext(ctx, filepath.Join(suite.bin, "criserver"), "--config", filepath.Join(n.Dir, "config.toml")).CombinedOutput()
		if err == nil || ctx.Err() != nil || !strings.Contains(string(out), "criserver: "+key) {
			t.Errorf("start with an invalid %s: got error %v, output %s, want an error that begins with the key", key, err, out)
		}
		cancel()
		if err := os.Remove(drop); err != nil {
			t.Fatal(err)
		}
	}
	n.restart(t)
}

func TestSocketAndReadiness(t *testing.T) {
	// The address of a socket has a size limit, and the directory of a test may be longer.
	dir, err := os.MkdirTemp(suite.dir, "notify")
	if err != nil {
		t.Fatal(err)
	}
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "s"))
	t.Setenv("WATCHDOG_USEC", "4000000")
	notification := func() string {
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
			// During its start, the daemon asks for more time.
			if got := string(b[:n]); !strings.HasPrefix(got, "EXTEND_TIMEOUT_USEC=") {
				return got
			}
		}
	}
	n := makeNode("ready")
	n.start(t)
	if got := notification(); got != "READY=1" {
		t.Errorf("notification at the start: got %q, want READY=1", got)
	}
	if got := notification(); got != "WATCHDOG=1" {
		t.Errorf("notification while the daemon serves: got %q, want WATCHDOG=1", got)
	}
	info, err := os.Stat(n.Socket())
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o660 {
		t.Errorf("mode of the socket: got %o, want 660", info.Mode().Perm())
	}
	if err := n.Stop(); err != nil {
		t.Fatalf("stop the daemon: %v", err)
	}
	got := notification()
	for got == "WATCHDOG=1" { // messages that the daemon sent before the stop
		got = notification()
	}
	if got != "STOPPING=1" {
		t.Errorf("notification at the end: got %q, want STOPPING=1", got)
	}
	if err := os.Unsetenv("NOTIFY_SOCKET"); err != nil { // the test does not read further messages
		t.Fatal(err)
	}
	n.restart(t)
}
