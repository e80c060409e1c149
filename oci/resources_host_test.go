package oci

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
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
		t.Errorf("of nothing: %v", got)
	}
}

// Keys are judged by the files that cgroups of this kernel have.
func TestUnifiedKeysOfTheKernel(t *testing.T) {
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
			t.Errorf("%s, on a host that nobody knows: %v", key, err)
		}
	}
}

// tree is a hierarchy of cgroups in a directory.
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
		"v2, nobody to look at": {true, []string{"a/cpu.max", "swaps"}, true},
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
