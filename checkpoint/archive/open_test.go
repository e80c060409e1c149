package archive

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
)

// TestOpen checks that a file with another size, a link and a missing file are refused.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "a.tar"), []byte("12345"), 0o600))
	must(t, os.Symlink("a.tar", filepath.Join(dir, "link")))
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	f, err := File{Path: "a.tar", Size: 5}.Open(root)
	must(t, err)
	must(t, f.Close())
	if _, err := (File{Path: "a.tar", Size: 6}).Open(root); !errors.Is(err, errdefs.ErrDataLoss) {
		t.Errorf("another size: got %v", err)
	}
	if _, err := (File{Path: "link", Size: 5}).Open(root); err == nil {
		t.Error("Open follows a link")
	}
	if _, err := (File{Path: "b.tar", Size: 5}).Open(root); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("missing file: got %v", err)
	}
}
