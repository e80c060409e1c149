package rootfs

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUsageOfADeepTree counts a tree that is deeper than a path can name, with a
// file on every level.
func TestUsageOfADeepTree(t *testing.T) {
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
		t.Errorf("%d inodes, want %d", inodes, want)
	}
	if bytes < levels*4096 {
		t.Errorf("%d bytes", bytes)
	}
}

// TestUsageOfATreeThatMoves moves the directory that the walk is in to another
// parent: the walk ends, and does not climb out of the tree.
func TestUsageOfATreeThatMoves(t *testing.T) {
	dir := t.TempDir()
	top := filepath.Join(dir, "top")
	for _, d := range []string{"a/b/c", "z"} {
		if err := os.MkdirAll(filepath.Join(top, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w := walk{linked: map[uint64]struct{}{}}
	var err error
	if w.dir, err = os.Open(top); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.dir.Close() }()
	w.enter()
	for filepath.Base(w.dir.Name()) != "c" {
		if !w.step() {
			t.Fatal("ended early")
		}
		if w.dir.Name() == "z" { // the order of directories is the file system's
			if !w.step() {
				t.Fatal("ended early")
			}
		}
	}
	if err := os.Rename(filepath.Join(top, "a/b"), filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	for len(w.above) > 0 && w.step() {
	}
	if w.dir.Name() != ".." || len(w.above) == 0 {
		t.Errorf("the walk did not end at the directory that has moved: at %s, %d levels left", w.dir.Name(), len(w.above))
	}
	if _, inodes := measure(context.Background(), top); inodes != 3 {
		t.Errorf("%d inodes, want 3", inodes)
	}
}
