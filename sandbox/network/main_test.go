package network

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/criserver/criserver/sandbox/namespace"
	"github.com/sirupsen/logrus"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// isolatedEnv is set in the environment of tests that run in their own namespaces.
const isolatedEnv = "CRISERVER_NETWORK_TEST_ISOLATED"

// TestMain runs the tests of the root user in a network namespace and a mount namespace, so that they do not change the
// interfaces and rules of the machine.
func TestMain(m *testing.M) {
	logrus.SetOutput(io.Discard)
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	if os.Getenv(isolatedEnv) == "" {
		os.Exit(runIsolated())
	}
	if err := setUpIsolated(); err != nil {
		fmt.Fprintln(os.Stderr, "set up the namespaces of the test:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func runIsolated() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), isolatedEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the kernel sends Pdeathsig when the thread ends
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func setUpIsolated() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("run", "/run", "tmpfs", 0, ""); err != nil { // for the lock file of iptables
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// makeNetNS creates a network namespace and returns its path.
func makeNetNS(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can create network namespaces")
	}
	dir := filepath.Join(t.TempDir(), "ns")
	if err := namespace.Make(namespace.Spec{Dir: dir, Net: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := namespace.UnpinAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, namespace.Net)
}

// writeFile writes an executable file.
func writeFile(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
}
