package rootfs

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMeasureDeepTree measures a tree whose paths are longer than the kernel allows, with a file on each level.
func TestMeasureDeepTree(t *testing.T) {
	const levels = 2500
	dir := t.TempDir()
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range levels {
		if err := unix.Mkdirat(fd, "d", 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := unix.Openat(fd, "file", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(f, make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(f)
		next, err := unix.Openat(fd, "d", unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(fd)
		fd = next
	}
	_ = unix.Close(fd)
	bytes, inodes := measure(t.Context(), dir)
	if want := uint64(2*levels + 1); inodes != want {
		t.Errorf("got %d inodes, want %d", inodes, want)
	}
	if bytes < levels*4096 {
		t.Errorf("got %d bytes, want at least %d", bytes, levels*4096)
	}
}

// TestMeasureMovedDirectory moves the current directory of the walk out of the tree. The walk must
// end and must not follow ".." out of the tree.
func TestMeasureMovedDirectory(t *testing.T) {
	dir := t.TempDir()
	top := filepath.Join(dir, "top")
	for _, d := range []string{"a/b/c", "z"} {
		if err := os.MkdirAll(filepath.Join(top, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w := treeWalk{counted: map[uint64]struct{}{}}
	var err error
	if w.dir, err = os.Open(top); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.dir.Close() }()
	w.enter()
	for filepath.Base(w.dir.Name()) != "c" {
		if !w.step() {
			t.Fatal("walk ended too early")
		}
		if w.dir.Name() == "z" { // the order of directories depends on the file system
			if !w.step() {
				t.Fatal("walk ended too early")
			}
		}
	}
	if err := os.Rename(filepath.Join(top, "a/b"), filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	for len(w.levels) > 0 && w.step() {
	}
	if w.dir.Name() != ".." || len(w.levels) == 0 {
		t.Errorf("walk did not end at the moved directory: at %s, %d levels left", w.dir.Name(), len(w.levels))
	}
	if _, inodes := measure(context.Background(), top); inodes != 3 {
		t.Errorf("got %d inodes, want 3", inodes)
	}
}
