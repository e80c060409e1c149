package sandbox

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/criserver/criserver/internal/patience"
	"github.com/criserver/criserver/sandbox/podspec"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("namespaces and mounts need root")
	}
}

// podConfig returns a request for a pod whose containers have their own PID namespaces.
func podConfig(name string) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "default", Uid: "uid-" + name},
		Hostname: name,
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent: "/test",
			SecurityContext: &cri.LinuxSandboxSecurityContext{
				NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER},
			},
		},
	}
}

// hostPod returns a request for a pod with the network and IPC namespaces of the host.
func hostPod(name string) *cri.PodSandboxConfig {
	c := podConfig(name)
	o := c.Linux.SecurityContext.NamespaceOptions
	o.Network, o.Ipc = cri.NamespaceMode_NODE, cri.NamespaceMode_NODE
	return c
}

// allowedSysctls are the sysctls that pods in tests may request.
var allowedSysctls = []string{"kernel.shm*", "kernel.msg*", "kernel.sem", "fs.mqueue.*", "net.*"}

func unitManager(t *testing.T, change func(*Config)) *Manager {
	t.Helper()
	cfg := Config{
		RunDir: t.TempDir(), Containers: &fakeContainers{}, Cgroups: &fakeCgroups{}, PausePath: "/pause",
		CgroupDriver: Cgroupfs, CgroupParent: "/criserver",
		Settings: Settings{
			AllowedSysctls: allowedSysctls, ShmSize: 64 << 20,
			KnownHandler: func(name string) bool { return name == "" || name == "runc" },
			HandlerNames: func() []string { return []string{"runc"} },
		},
	}
	if change != nil {
		change(&cfg)
	}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// mustParse parses a request as RunPod does.
func mustParse(t testing.TB, m *Manager, c *cri.PodSandboxConfig) *podspec.Spec {
	t.Helper()
	spec, err := podspec.Parse(c, "", m.node(m.settings.Load()))
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// mustRun runs a pod and returns its snapshot.
func mustRun(t testing.TB, m *Manager, c *cri.PodSandboxConfig) *Pod {
	t.Helper()
	id, err := m.RunPod(t.Context(), c, "")
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// mustRemove stops and removes pods.
func mustRemove(t testing.TB, m *Manager, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := m.Stop(t.Context(), id); err != nil {
			t.Error(err)
		}
		if err := m.Remove(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

// eventually waits until ok returns true. what describes the event for the error message.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := patience.Until(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("timeout: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func mustJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// buildBinary compiles a program of this module.
func buildBinary(t testing.TB, pkg string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, b)
	}
	return out
}
