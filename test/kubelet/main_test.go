package kubelet

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/criserver/criserver/test/harness"
	"github.com/criserver/criserver/test/images"
)

const (
	busybox = "registry.k8s.io/e2e-test-images/busybox:1.29-2"
	nginx   = "registry.k8s.io/e2e-test-images/nginx:1.14-2"
)

// dirPrefix begins the names of the directories and cgroups of runs.
const dirPrefix = "crikubelet"

// suite has the values that all tests of a run share.
var suite struct {
	top        string // top directory of the project
	dir        string
	registries string
}

func TestMain(m *testing.M) {
	// Most of the time the pods of a test wait for the kubelet or for each other.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	processes := flag.Int("processes", 1, "how many tests run at the same time")
	flag.Parse()
	code, err := run(m, *processes)
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubelet:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(m *testing.M, processes int) (code int, err error) {
	if harness.Listing() {
		return m.Run(), nil
	}
	if os.Getuid() != 0 {
		return 1, errors.New("a container runtime needs root")
	}
	if suite.top, err = filepath.Abs(filepath.Join("..", "..")); err != nil {
		return 1, err
	}
	cache := filepath.Join(suite.top, ".cache", "images")
	if harness.Stage() != "inside" {
		return outside(cache, processes)
	}
	var lock *os.File
	if suite.dir, lock, err = harness.MakeRunDir(dirPrefix); err == nil {
		defer lock.Close()
		err = os.Chmod(suite.dir, 0o711) // like /run and /var/lib: users of pods with a user namespace must be able to enter
	}
	if err != nil {
		return 1, err
	}
	if err := errors.Join(harness.SetUpHost(), setUpNode()); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, harness.CleanUp(suite.dir, filepath.Base(suite.dir))) }()
	addr, err := images.Serve(cache, "127.0.0.1:0")
	if err != nil {
		return 1, err
	}
	suite.registries = images.RegistriesConf(addr)
	return m.Run(), nil
}

// outside runs in the namespaces of the machine. It builds the images, which needs
// the network, starts the run in new namespaces, and then checks that the run did not
// change sysctls of the machine.
func outside(cache string, processes int) (code int, err error) {
	if err := harness.RemoveDeadRuns(dirPrefix); err != nil {
		return 1, err
	}
	if err := images.Build(context.Background(), cache, false); err != nil {
		return 1, err
	}
	before, err := readSysctls()
	if err != nil {
		return 1, err
	}
	err = harness.IsolatedTests(processes, os.Args[1:]...)
	after, readErr := readSysctls()
	for name, value := range before {
		if after[name] != value {
			err = errors.Join(err, fmt.Errorf("sysctl %s: got %s after the run, want %s", name, after[name], value))
		}
	}
	return 0, errors.Join(err, readErr)
}

// setUpNode adds what the kubelet needs to the namespaces: an address of the node, a
// default route, and an empty /var/log.
func setUpNode() error {
	for _, args := range [][]string{
		{"link", "add", "node0", "type", "veth", "peer", "name", "node1"},
		{"link", "set", "node0", "up"},
		{"link", "set", "node1", "up"},
		{"address", "add", nodeIP + "/24", "dev", "node0"},
		{"route", "add", "default", "via", "192.0.2.1"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %v: %w: %s", args, err, out)
		}
	}
	return harness.Tmpfs("/var/log")
}
