package kubelet

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
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

// world is what the tests of one run share. They run in namespaces of their own.
var world struct {
	top        string // of the project
	dir        string
	registries string
}

func TestMain(m *testing.M) {
	// The pods of a test mostly wait, for the kubelet or for each other.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubelet:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if os.Getuid() != 0 {
		return 1, errors.New("a container runtime needs root")
	}
	if world.top, err = filepath.Abs(filepath.Join("..", "..")); err != nil {
		return 1, err
	}
	cache := filepath.Join(world.top, ".cache", "images")
	if harness.Stage() != "inside" {
		return outside(cache)
	}
	if world.dir, err = os.MkdirTemp("", "crikubelet"); err == nil {
		err = os.Chmod(world.dir, 0o711) // as /run and /var/lib let everybody through
	}
	if err != nil {
		return 1, err
	}
	if err := errors.Join(harness.SetUpHost(), settle()); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, harness.CleanUp(world.dir, filepath.Base(world.dir))) }()
	addr, err := serveImages(cache)
	if err != nil {
		return 1, err
	}
	world.registries = images.RegistriesConf(addr)
	return m.Run(), nil
}

// outside does what needs the machine's own network, starts the run, and looks
// after it whether the machine's sysctls are what they were.
func outside(cache string) (code int, err error) {
	if err := images.Build(context.Background(), cache, false); err != nil {
		return 1, err
	}
	before, err := readSysctls()
	if err != nil {
		return 1, err
	}
	err = harness.Isolated(os.Args[1:]...)
	after, readErr := readSysctls()
	for name, value := range before {
		if after[name] != value {
			err = errors.Join(err, fmt.Errorf("sysctl %s was %s and is %s", name, value, after[name]))
		}
	}
	return 0, errors.Join(err, readErr)
}

// settle gives the namespaces what the kubelet wants of a machine: an address of
// the node with a route, and a /var/log to itself.
func settle() error {
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

func serveImages(dir string) (addr string, err error) {
	handler, err := images.Handler(dir)
	if err != nil {
		return "", err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go http.Serve(l, handler) // it serves until the process ends
	return l.Addr().String(), nil
}
