package daemon

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/criserver/criserver/config"
)

// TestSocketMode checks that neither a narrow nor a wide umask changes who can
// connect.
func TestSocketMode(t *testing.T) {
	defer unix.Umask(unix.Umask(0o022))
	for _, umask := range []int{0, 0o022, 0o077} {
		unix.Umask(umask)
		cfg := config.Default()
		cfg.Socket = filepath.Join(t.TempDir(), "d", "s")
		l, err := listen(cfg)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(cfg.Socket)
		if err != nil || info.Mode().Perm() != 0o660 {
			t.Errorf("umask %o: mode %v, %v", umask, info.Mode(), err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestListenKeepsTheUmask has another goroutine make files, which a CNI plugin
// could do as well, while the socket is opened.
func TestListenKeepsTheUmask(t *testing.T) {
	defer unix.Umask(unix.Umask(0o022))
	dir := t.TempDir()
	var done atomic.Bool
	finished := make(chan error, 1)
	go func() { finished <- makeFiles(filepath.Join(dir, "file"), &done) }()
	for range 300 {
		cfg := config.Default()
		cfg.Socket = filepath.Join(dir, "s")
		l, err := listen(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	done.Store(true)
	if err := <-finished; err != nil {
		t.Error(err)
	}
}

func makeFiles(path string, done *atomic.Bool) error {
	for !done.Load() {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o755)
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if info.Mode().Perm() != 0o755 {
			return &os.PathError{Op: "create with the umask of the socket", Path: info.Mode().String(), Err: os.ErrPermission}
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
