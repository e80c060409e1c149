package trash

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// deeper makes directories below dir, more than a path can name, with a file in
// the last.
func deeper(t *testing.T, dir string, levels int) {
	t.Helper()
	const part = 100
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range levels / part {
		path := strings.Repeat("d/", part)
		for i := range part {
			if err := unix.Mkdirat(fd, path[:2*i+1], 0o755); err != nil {
				t.Fatal(err)
			}
		}
		next, err := unix.Openat(fd, path, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		_ = unix.Close(fd)
		if err != nil {
			t.Fatal(err)
		}
		fd = next
	}
	f, err := unix.Openat(fd, "file", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = unix.Close(f), unix.Close(fd)
}

// TestDeepTree deletes a tree that is deeper than the process may have
// directories open.
func TestDeepTree(t *testing.T) {
	dir := t.TempDir()
	bin, tree := mkdir(t, dir, "bin"), mkdir(t, dir, "tree")
	deeper(t, tree, 3000)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	few := limit
	few.Cur = 300
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) }()
	b := New(bin)
	if err := b.Put(tree); err != nil {
		t.Fatal(err)
	}
	if err := b.Empty(t.Context()); err != nil {
		t.Error(err)
	}
	if n := count(t, bin); n > 0 {
		t.Errorf("%d left", n)
	}
}

// TestMountInATree has something mounted in a tree: it is not emptied.
func TestMountInATree(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounts a file system: must be root")
	}
	bin := mkdir(t, t.TempDir(), "bin")
	target, kept := mkdir(t, bin, "tree", "mount"), t.TempDir()
	if err := os.WriteFile(filepath.Join(kept, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(kept, target, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	err := New(bin).Empty(t.Context())
	if uerr := unix.Unmount(target, 0); uerr != nil {
		t.Fatal(uerr)
	}
	if _, serr := os.Stat(filepath.Join(kept, "file")); serr != nil || err == nil {
		t.Errorf("the file of the mount: %v; empty: %v", serr, err)
	}
}
