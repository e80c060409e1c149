package flock

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := TryOpen(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TryOpen(path); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("TryOpen of a locked file: %v, want EWOULDBLOCK", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open of a locked file: %v, want DeadlineExceeded", err)
	}
	time.AfterFunc(20*time.Millisecond, func() { _ = first.Close() })
	second, err := Open(t.Context(), path)
	if err != nil {
		t.Fatalf("Open after the release of the lock: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if _, err := TryOpen(filepath.Join(path, "lock")); err == nil {
		t.Error("TryOpen succeeded in a directory that does not exist")
	}
}
