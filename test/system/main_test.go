package system

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/criserver/criserver/test/harness"
	"github.com/criserver/criserver/test/images"
)

const (
	busybox = "registry.k8s.io/e2e-test-images/busybox:1.29-2"
	nginx   = "registry.k8s.io/e2e-test-images/nginx:1.14-2"
)

// world is what the tests of one run share. They run in namespaces of their own.
var world struct {
	bin        string
	dir        string
	catalog    http.Handler // the registry of the test images
	registries string
	images     string // address of the registry of the test images
}

func TestMain(m *testing.M) {
	if os.Getenv(pluginVariable) != "" { // this binary is also the plugin of the NRI tests
		os.Exit(pluginMain())
	}
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "system:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if os.Getuid() != 0 {
		return 1, errors.New("a container runtime needs root")
	}
	top, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return 1, err
	}
	cache := filepath.Join(top, ".cache", "images")
	if harness.Stage() != "inside" {
		// Making the images needs the machine's own network.
		if err := images.Build(context.Background(), cache, !testing.Short()); err != nil {
			return 1, err
		}
		return 0, harness.Isolated(os.Args[1:]...)
	}
	world.bin = filepath.Join(top, "bin")
	if world.dir, err = os.MkdirTemp("", "crisystem"); err == nil {
		err = os.Chmod(world.dir, 0o711) // as /run and /var/lib let everybody through
	}
	if err == nil {
		err = harness.LabelState(world.dir)
	}
	if err != nil {
		return 1, err
	}
	if err := harness.SetUpHost(); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, harness.CleanUp(world.dir, filepath.Base(world.dir))) }()
	if world.catalog, err = images.Handler(cache); err != nil {
		return 1, err
	}
	if world.images, err = serveImages("127.0.0.1:0"); err != nil {
		return 1, err
	}
	world.registries = images.RegistriesConf(world.images)
	return m.Run(), nil
}

// serveImages serves the images in the caller's network namespace.
func serveImages(at string) (addr string, err error) {
	l, err := net.Listen("tcp", at)
	if err != nil {
		return "", err
	}
	go http.Serve(l, world.catalog) // it serves until the process ends
	return l.Addr().String(), nil
}

// node is a daemon with its clients.
type node struct {
	*harness.Daemon
	clients
	t      *testing.T
	before harness.Snapshot
}

// newNode starts a daemon on a bridge and subnets of its own. When the test
// ends, all that it did must be gone.
func newNode(t *testing.T, name string, net byte) *node {
	t.Helper()
	n := makeNode(name)
	n.t = t
	n.Network = n.Bridge("cs"+name, fmt.Sprintf("10.%d.0.0/16", net), fmt.Sprintf("fd00:%x::/64", net))
	n.start(t)
	return n
}

func makeNode(name string) *node {
	return &node{Daemon: &harness.Daemon{
		Bin: world.bin, Dir: unused(filepath.Join(world.dir, name)), Registries: world.registries,
		CgroupParent: "/" + filepath.Base(world.dir) + "-" + name,
	}}
}

// unused is the path, or one like it if a test that was run before had that.
func unused(path string) string {
	for next, i := path, 2; ; i++ {
		if _, err := os.Lstat(next); err != nil {
			return next
		}
		next = fmt.Sprintf("%s-%d", path, i)
	}
}

func (n *node) start(t *testing.T) {
	t.Helper()
	n.t = t
	run := filepath.Join(n.Dir, "run")
	if err := harness.Tmpfs(run); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // with the daemon gone nothing may keep it busy
		if err := unix.Unmount(run, 0); err != nil {
			t.Errorf("unmount %s: %v", run, err)
		}
	})
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.close)
	if err := n.dial(n.Socket()); err != nil {
		t.Fatal(err)
	}
	n.settled(t)
	// What is made once and stays (the bridge, the plugins' chains) is no leak:
	// a first pod brings it forth.
	n.Pull(t, busybox)
	if n.Network != "" {
		p := n.RunPod(t, podConfig("first"))
		n.run(t, p, "first", "true")
		n.RemovePod(t, p.ID)
	}
	n.mark(t)
}

// settled waits until the daemon has ended the checks of its start: the features
// of the handlers are known, and the state of the network.
func (n *node) settled(t *testing.T) {
	t.Helper()
	waitFor(t, "the checks of the start to end", func() bool {
		st, err := n.RuntimeService.Status(t.Context(), &cri.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range st.GetStatus().GetConditions() {
			if c.GetType() == cri.RuntimeReady && !c.GetStatus() || strings.Contains(c.GetMessage(), " yet") {
				return false
			}
		}
		return true
	})
}

// mark takes the state of now as the one to come back to.
func (n *node) mark(t *testing.T) {
	t.Helper()
	var err error
	if n.before, err = n.take(); err != nil {
		t.Fatal(err)
	}
}

func (n *node) take() (s harness.Snapshot, err error) {
	err = harness.In(n.NetNS, func() error {
		s, err = harness.Take(n.StateDirs(), n.CgroupParent, n.Pid())
		return err
	})
	return s, err
}

// restart starts the daemon again, after a stop or kill, and connects to it.
func (n *node) restart(t *testing.T) {
	t.Helper()
	if err := n.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.dial(n.Socket()); err != nil {
		t.Fatal(err)
	}
}

// close takes everything down and looks for what is left.
func (n *node) close() {
	t := n.t
	if t.Failed() {
		t.Log(n.LogTail())
	}
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience(2*time.Minute))
	defer cancel()
	if err := n.empty(ctx); err != nil {
		t.Error(err)
	}
	if n.before != nil {
		n.mustBeClean(ctx)
	}
	err := n.Stop()
	if err := errors.Join(err, n.RemoveNetworks()); err != nil {
		t.Error(err)
	}
}

// mustBeClean waits, as deleting layers goes on after the answer, for nothing to
// be there that was not before.
func (n *node) mustBeClean(ctx context.Context) {
	n.t.Helper()
	var left []string
	for end := time.Now().Add(harness.Patience(15 * time.Second)); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
		after, err := n.take()
		if err != nil {
			n.t.Error(err)
			return
		}
		if left = after.Since(n.before); len(left) == 0 {
			return
		}
	}
	for _, l := range left {
		n.t.Errorf("left behind: %s", l)
	}
}
