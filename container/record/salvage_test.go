package record

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/criserver/criserver/oci/runtime"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestSalvage checks the values that a Salvager takes from damaged files, and the safe values of the fields that
// are missing.
func TestSalvage(t *testing.T) {
	const pod = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	runDir, id := t.TempDir(), strings.Repeat("ab", 32)
	dir := filepath.Join(runDir, "containers", id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	found := runtime.Runtime{Name: "found", Path: "/bin/found", Root: "/run/found"}
	s := Salvager{RunDir: runDir, Boot: "now", FindRuntime: func(string) runtime.Runtime { return found }}

	rec, config, podConfig := s.Salvage(dir)
	if rec.ID != id || rec.Boot != "now" || !rec.SharedPID || rec.StopSignal != unix.SIGTERM || rec.Runtime.Name != "found" || rec.PodID != "" {
		t.Errorf("without files: got %+v", rec)
	}
	if config.GetMetadata().GetName() != id || podConfig == nil {
		t.Errorf("without files: got config %v, want the id as the name", config)
	}

	// The OCI config names the files of the pod.
	spec := `{"mounts": [{"source": "` + filepath.Join(runDir, "pods", pod, "hosts") + `"}]}`
	if err := os.WriteFile(filepath.Join(dir, ConfigFile), []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	if rec, _, _ := s.Salvage(dir); rec.PodID != pod {
		t.Errorf("pod of the OCI config: got %q, want %q", rec.PodID, pod)
	}

	// A field of another type is an error, but the other fields can be read.
	whole := &Record{Version: Version, ID: id, PodID: "pod", Runtime: found, StopSignal: unix.SIGINT}
	if err := whole.SetMessages(&cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "a"}}, &cri.PodSandboxConfig{}); err != nil {
		t.Fatal(err)
	}
	if err := whole.Write(dir); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, File))
	if err != nil {
		t.Fatal(err)
	}
	damaged := strings.Replace(string(b), `"version":1`, `"version":"x"`, 1)
	if err := os.WriteFile(filepath.Join(dir, File), []byte(damaged), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir); err == nil {
		t.Fatal("read a damaged record: got no error")
	}
	rec, config, _ = s.Salvage(dir)
	if rec.PodID != "pod" || rec.StopSignal != unix.SIGINT || rec.SharedPID || config.GetMetadata().GetName() != "a" {
		t.Errorf("damaged record: got %+v and config %v", rec, config)
	}
}

func TestCgroup(t *testing.T) {
	for path, want := range map[string]string{
		"/pod/criserver-1":                 "/pod/criserver-1",
		"/pod/criserver-1/child":           "/pod/criserver-1",
		"/pod/criserver-1.scope/container": "/pod/criserver-1.scope",
		"/pod/criserver-12":                "",
		"/pod":                             "",
	} {
		if got, ok := Cgroup("1", path); got != want || ok != (want != "") {
			t.Errorf("%s: got %q, %t, want %q", path, got, ok, want)
		}
	}
}
