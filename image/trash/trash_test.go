package trash

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"
)

func mkdir(t *testing.T, path ...string) string {
	t.Helper()
	dir := filepath.Join(path...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func count(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestBin(t *testing.T) {
	dir := t.TempDir()
	bin := mkdir(t, dir, "bin")
	mkdir(t, bin, "of an earlier process", "a")
	synctest.Test(t, func(t *testing.T) {
		b := New(bin) // its channel must belong to the bubble
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan struct{})
		go func() { b.Run(ctx, func(err error) { t.Error(err) }); close(stopped) }()
		synctest.Wait()
		if n := count(t, bin); n != 0 {
			t.Errorf("got %d entries, want none", n)
		}
		mkdir(t, dir, "all", "x", "y")
		mkdir(t, dir, "all", "z")
		if err := b.PutAll(filepath.Join(dir, "all")); err != nil {
			t.Error(err)
		}
		if err := b.Put(filepath.Join(dir, "none")); err != nil {
			t.Errorf("put a missing path: %v", err)
		}
		synctest.Wait()
		if n := count(t, bin) + count(t, filepath.Join(dir, "all")); n != 0 {
			t.Errorf("got %d entries, want none", n)
		}
		cancel()
		<-stopped
	})
	if err := New(filepath.Join(dir, "no bin")).Put(mkdir(t, dir, "kept")); err == nil {
		t.Error("put into a missing bin: got no error")
	}
	if _, err := os.Stat(filepath.Join(dir, "kept")); err != nil {
		t.Error(err)
	}
}

// mkdirDeep creates nested directories below dir, with a file in the last one. Their path is longer
// than the kernel allows.
func mkdirDeep(t *testing.T, dir string, levels int) {
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

// TestEmptyDeepTree deletes a tree with more levels than the process may have open files.
func TestEmptyDeepTree(t *testing.T) {
	dir := t.TempDir()
	bin, tree := mkdir(t, dir, "bin"), mkdir(t, dir, "tree")
	mkdirDeep(t, tree, 3000)
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
		t.Errorf("bin has %d entries, want none", n)
	}
}

// TestEmptyWithMount deletes a tree with a mounted file system, whose files must not be deleted.
func TestEmptyWithMount(t *testing.T) {
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
	if unmountErr := unix.Unmount(target, 0); unmountErr != nil {
		t.Fatal(unmountErr)
	}
	if _, statErr := os.Stat(filepath.Join(kept, "file")); statErr != nil || err == nil {
		t.Errorf("file in the mount: %v, Empty: %v", statErr, err)
	}
}
