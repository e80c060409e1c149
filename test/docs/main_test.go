package docs

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/criserver/criserver/test/harness"
	"github.com/criserver/criserver/test/images"
)

// dirVariable is the environment variable with the directory of the run.
const dirVariable = "CRISERVER_TEST_DOCS_DIR"

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if testing.Short() {
		return m.Run(), nil
	}
	if os.Getuid() != 0 {
		return 1, errors.New("a container runtime needs root; -short runs the checks that need no root")
	}
	cache := filepath.Join(top, ".cache", "images")
	if harness.Stage() != "inside" {
		return outside(cache)
	}
	if err := harness.MountProc(); err != nil {
		return 1, err
	}
	if err := harness.SetUpHost(); err != nil {
		return 1, err
	}
	dir := os.Getenv(dirVariable)
	defer func() { err = errors.Join(err, harness.CleanUp(dir, filepath.Base(dir))) }()
	if host, err = newMachine(dir); err != nil {
		return 1, err
	}
	if host.registry, err = images.Serve(cache, "127.0.0.1:0"); err != nil {
		return 1, err
	}
	code = m.Run()
	if host.before != nil { // a test has installed the daemon
		_, err = host.bash("systemctl stop criserver")
	}
	return code, err
}
