package trash

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
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
