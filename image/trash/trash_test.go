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
	mkdir(t, bin, "left by an earlier process", "a")
	synctest.Test(t, func(t *testing.T) {
		b := New(bin) // a channel of the bubble's
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan struct{})
		go func() { b.Run(ctx, func(err error) { t.Error(err) }); close(ran) }()
		synctest.Wait()
		if n := count(t, bin); n != 0 {
			t.Errorf("%d left", n)
		}
		mkdir(t, dir, "all", "x", "y")
		mkdir(t, dir, "all", "z")
		if err := b.PutAll(filepath.Join(dir, "all")); err != nil {
			t.Error(err)
		}
		if err := b.Put(filepath.Join(dir, "none")); err != nil {
			t.Errorf("put what is not there: %v", err)
		}
		synctest.Wait()
		if n := count(t, bin) + count(t, filepath.Join(dir, "all")); n != 0 {
			t.Errorf("%d left", n)
		}
		cancel()
		<-ran
	})
	if err := New(filepath.Join(dir, "no bin")).Put(mkdir(t, dir, "kept")); err == nil {
		t.Error("put into no bin")
	}
	if _, err := os.Stat(filepath.Join(dir, "kept")); err != nil {
		t.Error(err)
	}
}
