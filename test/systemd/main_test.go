package systemd

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/criserver/criserver/test/harness"
	"github.com/criserver/criserver/test/images"
)

const (
	marker     = "/etc/criserver-test-guest"
	unit       = "criserver.service"
	socket     = "/run/criserver/criserver.sock"
	busybox    = "docker.io/library/busybox:latest"
	registry   = "127.0.0.1:5000"
	registries = "/etc/containers/registries.conf.d/50-criserver-test.conf"
	// stateDir holds the files of the suite, on a disk that outlives a reboot.
	stateDir = "/var/lib/criserver-test"
)

// top is the top directory of the source tree.
var top string

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "systemd:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if _, err := os.Stat(marker); err != nil {
		return 1, fmt.Errorf("this suite changes the host; it runs only where %s exists", marker)
	}
	if os.Getuid() != 0 {
		return 1, fmt.Errorf("the suite needs root")
	}
	if top, err = filepath.Abs(filepath.Join("..", "..")); err != nil {
		return 1, err
	}
	if err := os.MkdirAll(stateDir, 0o755); err != nil {
		return 1, err
	}
	if err := serveImages(filepath.Join(top, ".cache", "images")); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// serveImages serves the test images on loopback, and writes a registries.conf for them.
func serveImages(cache string) error {
	if err := images.Build(context.Background(), cache, false); err != nil {
		return err
	}
	if _, err := images.Serve(cache, registry); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(registries), 0o755); err != nil {
		return err
	}
	return os.WriteFile(registries, []byte(images.RegistriesConf(registry)), 0o644)
}

// eventually calls check until check returns nil or the deadline has passed.
func eventually(t *testing.T, d time.Duration, check func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(harness.Patience(d)); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("after %s: %v", harness.Patience(d), err)
}
