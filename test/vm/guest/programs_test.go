package guest

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestPackages checks that the tree of an architecture has exactly the package that was built last.
func TestPackages(t *testing.T) {
	top, arch := t.TempDir(), "other"
	built := filepath.Join(top, "bin", "deb")
	for _, version := range []string{"1", "2"} {
		if err := os.RemoveAll(built); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(built, 0o755); err != nil {
			t.Fatal(err)
		}
		name := "criserver_" + version + "_" + arch + ".deb"
		for _, file := range []string{name, "criserver_" + version + "_amd64.deb"} {
			if err := os.WriteFile(filepath.Join(built, file), []byte(version), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := packages(top, arch); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(filepath.Join(Tree(top, arch), "bin", "deb"))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range entries {
			got = append(got, e.Name())
		}
		if !slices.Equal(got, []string{name}) {
			t.Errorf("packages of %s: got %v, want %s", arch, got, name)
		}
	}
	if err := os.RemoveAll(built); err != nil {
		t.Fatal(err)
	}
	if err := packages(top, arch); err != nil {
		t.Errorf("without packages: %v", err)
	}
}
