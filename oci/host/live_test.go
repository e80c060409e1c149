package host

import (
	"os"
	"path/filepath"
	"testing"
)

// TestUnifiedKeys checks that the files of this kernel's cgroups decide which keys are valid.
func TestUnifiedKeys(t *testing.T) {
	root := t.TempDir()
	for file, f := range map[string]struct {
		content string
		mode    os.FileMode
	}{
		"cgroup.controllers":              {"memory io\n", 0o444},
		"cpu.pressure":                    {"", 0o644},
		"system.slice/cgroup.controllers": {"memory\n", 0o444}, // io is enabled for no cgroup but the root
		"system.slice/memory.high":        {"", 0o644},
		"system.slice/memory.current":     {"", 0o444},
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, file), []byte(f.content), f.mode); err != nil {
			t.Fatal(err)
		}
	}
	for key, want := range map[string]string{
		"memory.high":     "",
		"memory.hihg":     "does not exist in this kernel",
		"memory.current":  "cannot be written",
		"io.max":          "",
		"hugetlb.2MB.max": "needs a cgroup controller that this host does not have",
		"cpu.pressure":    "",
	} {
		if got := (liveFacts{root}).UnifiedRule(key); got != want {
			t.Errorf("rule of %s: got %q, want %q", key, got, want)
		}
		if got := (liveFacts{}).UnifiedRule(key); got != "" {
			t.Errorf("rule of %s on an unknown host: got %q, want none", key, got)
		}
	}
}
