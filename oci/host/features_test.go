package host

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestHugePageSizes(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"hugepages-2048kB", "hugepages-1048576kB", "hugepages-64kB", "other", "hugepages-xkB"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	got := hugePages(dir)
	slices.Sort(got)
	if !slices.Equal(got, []string{"1GB", "2MB", "64KB"}) {
		t.Errorf("got %v", got)
	}
	if got := hugePages(filepath.Join(dir, "none")); got != nil {
		t.Errorf("missing directory: %v", got)
	}
}

// tree is a cgroup hierarchy in a directory.
type tree struct {
	Controllers
	dir string
	v2  bool
}

func (t tree) V2() bool { return t.v2 }

func (t tree) Dir(controller, p string) string { return filepath.Join(t.dir, controller, p) }

func TestSwapAccounting(t *testing.T) {
	for name, tc := range map[string]struct {
		v2    bool
		files []string
		want  bool
	}{
		"v1":                    {false, []string{"memory/memory.memsw.limit_in_bytes"}, true},
		"v1 without":            {false, []string{"memory/memory.limit_in_bytes", "swaps"}, false},
		"v2":                    {true, []string{"a/memory.max", "b/memory.max", "b/memory.swap.max"}, true},
		"v2 without":            {true, []string{"a/memory.max", "swaps"}, false},
		"v2, no other cgroup":   {true, []string{"a/cpu.max", "swaps"}, true},
		"no swap in the kernel": {true, []string{"a/cpu.max"}, false},
	} {
		dir := t.TempDir()
		for _, file := range tc.files {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, file), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := swapAccounting(tree{dir: dir, v2: tc.v2}, filepath.Join(dir, "swaps")); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
