package listen

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/config"
)

// TestListenSocketMode checks that the mode of the socket does not depend on the umask.
func TestListenSocketMode(t *testing.T) {
	defer unix.Umask(unix.Umask(0o022))
	for _, umask := range []int{0, 0o022, 0o077} {
		unix.Umask(umask)
		cfg := config.Default()
		cfg.Socket = filepath.Join(t.TempDir(), "d", "s")
		l, err := CRI(cfg)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(cfg.Socket)
		if err != nil || info.Mode().Perm() != 0o660 {
			t.Errorf("umask %o: got mode %v, %v, want 0660", umask, info.Mode(), err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestListenAdmin checks that only the user of the daemon can connect to the administration
// API, and that a directory in which another user could replace the socket is refused.
func TestListenAdmin(t *testing.T) {
	defer unix.Umask(unix.Umask(0o022))
	for mode, refused := range map[os.FileMode]bool{0o711: false, 0o755: false, 0o775: true, 0o777: true} {
		dir := t.TempDir()
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		cfg := config.Default()
		cfg.AdminSocket = filepath.Join(dir, "s")
		l, err := Admin(cfg)
		if refused {
			if err == nil || !strings.Contains(err.Error(), dir) {
				t.Errorf("directory with mode %o: got %v, want an error that names the directory", mode, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(cfg.AdminSocket)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("got socket mode %v, %v, want 0600", info.Mode(), err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestListenKeepsUmask checks that listen does not change the umask, not even for a moment:
// another goroutine creates files with the default umask while sockets are created.
func TestListenKeepsUmask(t *testing.T) {
	defer unix.Umask(unix.Umask(0o022))
	dir := t.TempDir()
	var stop atomic.Bool
	done := make(chan error, 1)
	go func() { done <- createFiles(filepath.Join(dir, "file"), &stop) }()
	for range 300 {
		cfg := config.Default()
		cfg.Socket = filepath.Join(dir, "s")
		l, err := CRI(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	stop.Store(true)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// createFiles creates and removes a file until stop is set. It checks the mode of the file.
func createFiles(path string, stop *atomic.Bool) error {
	for !stop.Load() {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o755)
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if info.Mode().Perm() != 0o755 {
			return fmt.Errorf("a file created while a socket is created has mode %v, want 0755", info.Mode())
		}
		if err := f.Close(); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// TestListenKeepsFiles checks that a wrong path of a socket does not delete a file.
func TestListenKeepsFiles(t *testing.T) {
	cfg := config.Default()
	cfg.Socket = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(cfg.Socket, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := CRI(cfg); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("got %v, want an error", err)
	}
	if b, err := os.ReadFile(cfg.Socket); err != nil || string(b) != "content" {
		t.Errorf("the file was changed: %q, %v", b, err)
	}
}
