package daemon

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/criserver/criserver/config"
)

func TestLockDirs(t *testing.T) {
	dir := t.TempDir()
	root, runDir, otherRoot := filepath.Join(dir, "root"), filepath.Join(dir, "run"), filepath.Join(dir, "other")
	locks, err := lockDirs(root, runDir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockDirs(otherRoot, runDir); err == nil || !strings.Contains(err.Error(), runDir+" is in use by another daemon") {
		t.Errorf("with a locked run directory: got %v, want an error that names it", err)
	}
	// The attempt that failed must not keep the lock of its first directory.
	other, err := lockDirs(otherRoot)
	if err != nil {
		t.Errorf("after a failed attempt: got %v", err)
	}
	if err := locks.release(); err != nil {
		t.Error(err)
	}
	again, err := lockDirs(root, runDir)
	if err != nil {
		t.Errorf("after release: got %v", err)
	}
	for _, l := range []dirLocks{other, again} {
		if err := l.release(); err != nil {
			t.Error(err)
		}
	}
}

// TestRunInUse checks that Run ends before it inspects the host if another daemon uses the
// directories.
func TestRunInUse(t *testing.T) {
	settings := config.Default()
	settings.Root, settings.RunDir = filepath.Join(t.TempDir(), "root"), filepath.Join(t.TempDir(), "run")
	locks, err := lockDirs(settings.RunDir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = locks.release() }()
	err = New(Config{Settings: settings, Version: "1.0.0"}).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "is in use by another daemon") {
		t.Errorf("got %v, want an error that names the directory", err)
	}
	if _, err := CheckImages(t.Context(), settings, false); err == nil || !strings.Contains(err.Error(), "is in use by another daemon") {
		t.Errorf("CheckImages: got %v, want an error that names the directory", err)
	}
}
