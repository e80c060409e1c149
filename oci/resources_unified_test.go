package oci

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// The files of this kernel's cgroups decide which keys are valid.
func TestUnifiedKeys(t *testing.T) {
	root := t.TempDir()
	for file, mode := range map[string]os.FileMode{
		"cgroup.controllers": 0o444, "cpu.pressure": 0o644,
		"system.slice/cgroup.controllers": 0o444, "system.slice/memory.high": 0o644, "system.slice/memory.current": 0o444,
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, file), []byte("memory io\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	// The controller io is enabled for no cgroup but the root.
	if err := os.WriteFile(filepath.Join(root, "system.slice/cgroup.controllers"), []byte("memory\n"), 0o444); err != nil && os.Getuid() == 0 {
		t.Fatal(err)
	}
	h := testHost()
	for key, want := range map[string]string{
		"memory.high":     "",
		"memory.hihg":     "does not exist in this kernel",
		"memory.current":  "cannot be written",
		"io.max":          "",
		"hugetlb.2MB.max": "needs a cgroup controller",
		"cpu.pressure":    "",
	} {
		r := &limits{Unified: map[string]string{key: "1"}}
		h.UnifiedRoot = root
		err := NewBuilder(h, Defaults{}).CheckNewResources(r)
		if (want == "") != (err == nil) || err != nil && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "unified: \""+key)) {
			t.Errorf("%s: %v", key, err)
		}
		h.UnifiedRoot = ""
		if err := NewBuilder(h, Defaults{}).CheckNewResources(r); err != nil {
			t.Errorf("%s on an unknown host: %v", key, err)
		}
	}
}
