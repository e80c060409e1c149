package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWriteStacks checks that the stacks are complete, and that only the newest files are kept.
func TestWriteStacks(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "stacks")
	var last string
	for range keptStacks + 3 {
		file, err := writeStacks(dir, allStacks())
		if err != nil {
			t.Fatal(err)
		}
		if file <= last {
			t.Errorf("file %s is not after %s", file, last)
		}
		last = file
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != keptStacks || files[keptStacks-1] != last {
		t.Errorf("files %v, %v; want %d with the last one", files, err, keptStacks)
	}
	if b, err := os.ReadFile(last); err != nil || !strings.Contains(string(b), "TestWriteStacks") {
		t.Errorf("stacks %q, %v", b, err)
	}
}
