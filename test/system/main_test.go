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

// dirPrefix begins the names of the directories and cgroups of runs.
const dirPrefix = "crisystem"

// suite has the values that all tests of a run share.
var suite struct {
	bin        string
	dir        string
	catalog    http.Handler // the registry of the test images
	registries string
	images     string // address of the registry of the test images
}

func TestMain(m *testing.M) {
	if os.Getenv(pluginVariable) != "" { // the test binary is also the plugin of the NRI tests
		os.Exit(pluginMain())
	}
	if os.Getenv(noInotifyVariable) != "" {
		fmt.Fprintln(os.Stderr, "system:", executeWithoutInotify())
		os.Exit(1)
	}
	processes := flag.Int("processes", 1, "how many tests run at the same time")
	flag.Parse()
	code, err := run(m, *processes)
	if err != nil {
		fmt.Fprintln(os.Stderr, "system:", err)
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
	top, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return 1, err
	}
	cache := filepath.Join(top, ".cache", "images")
	if harness.Stage() != "inside" {
		if err := harness.RemoveDeadRuns(dirPrefix); err != nil {
			return 1, err
		}
		// Building the images needs the network of the machine.
		if err := images.Build(context.Background(), cache, !testing.Short()); err != nil {
			return 1, err
		}
		return 0, runTests(processes)
	}
	suite.bin = filepath.Join(top, "bin")
	var lock *os.File
	if suite.dir, lock, err = harness.MakeRunDir(dirPrefix); err == nil {
		defer lock.Close()
		err = os.Chmod(suite.dir, 0o711) // like /run and /var/lib: users of pods with a user namespace must be able to enter
	}
	if err == nil {
		err = harness.LabelState(suite.dir)
	}
	if err != nil {
		return 1, err
	}
	if err := harness.SetUpHost(); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, harness.CleanUp(suite.dir, filepath.Base(suite.dir))) }()
	if suite.catalog, err = images.Handler(cache); err != nil {
		return 1, err
	}
	if suite.images, err = serveImages("127.0.0.1:0"); err != nil {
		return 1, err
	}
	suite.registries = images.RegistriesConf(suite.images)
	return m.Run(), nil
}

// runTests starts one or more processes in new namespaces, which run the tests. It gives them a directory for results
// that they share.
func runTests(processes int) (err error) {
	dir, lock, err := harness.MakeRunDir(dirPrefix)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir), lock.Close()) }()
	if err := os.Setenv(trialsVariable, dir); err != nil {
		return err
	}
	return harness.IsolatedTests(processes, os.Args[1:]...)
}

// serveImages serves the test images at an address in the caller's network namespace.
func serveImages(address string) (addr string, err error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return "", err
	}
	go http.Serve(l, suite.catalog) // the server ends with the process
	return l.Addr().String(), nil
}

// node is a daemon with its CRI clients.
type node struct {
	*harness.Daemon
	clients
	t           *testing.T
	before      harness.Snapshot
	shareTrials bool // of OCI runtimes, with other tests
}

// newNode starts a daemon with its own bridge and subnets. When the test ends, the
// node removes all pods and checks that nothing leaks.
func newNode(t *testing.T, name string, net byte) *node {
	t.Helper()
	n := makeNode(name)
	n.t = t
	n.shareTrials = true
	n.Network = n.Bridge("cs"+name, fmt.Sprintf("10.%d.0.0/16", net), fmt.Sprintf("fd00:%x::/64", net))
	n.start(t)
	return n
}

func makeNode(name string) *node {
	return &node{Daemon: &harness.Daemon{
		Bin: suite.bin, Dir: unused(filepath.Join(suite.dir, name)), Registries: suite.registries,
		CgroupParent: "/" + filepath.Base(suite.dir) + "-" + name,
	}}
}

// unused returns the path, with a number appended if an earlier test has used it.
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
	t.Cleanup(func() { // after the exit of the daemon nothing may use the mount
		if err := unix.Unmount(run, 0); err != nil {
			t.Errorf("unmount %s: %v", run, err)
		}
	})
	if n.shareTrials {
		if err := n.loadTrials(); err != nil {
			t.Fatalf("use the results of trials of other tests: %v", err)
		}
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatalf("start the daemon: %v", err)
	}
	t.Cleanup(n.close)
	if err := n.dial(n.Socket()); err != nil {
		t.Fatalf("connect to the daemon: %v", err)
	}
	n.waitChecked(t)
	if n.shareTrials {
		if err := n.saveTrials(); err != nil {
			t.Fatalf("share the results of trials with other tests: %v", err)
		}
	}
	// The first pod creates objects that remain and are not leaks, for example the
	// bridge and chains of the plugins.
	n.Pull(t, busybox)
	if n.Network != "" {
		p := n.RunPod(t, podConfig("first"))
		n.run(t, p, "first", "true")
		n.RemovePod(t, p.ID)
	}
	n.takeBaseline(t)
}

// waitChecked waits until the daemon has finished the checks of its start, so that it
// knows the features of the handlers and the state of the network.
func (n *node) waitChecked(t *testing.T) {
	t.Helper()
	waitFor(t, "the checks of the start", func() bool {
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

// takeBaseline takes the snapshot with which checkLeaks compares.
func (n *node) takeBaseline(t *testing.T) {
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

// restart starts the daemon after a stop or kill, and connects to it.
func (n *node) restart(t *testing.T) {
	t.Helper()
	if err := n.Restart(t.Context()); err != nil {
		t.Fatalf("restart the daemon: %v", err)
	}
	if err := n.dial(n.Socket()); err != nil {
		t.Fatalf("connect to the daemon: %v", err)
	}
}

// close removes all pods and images, checks for leaks, and stops the daemon.
func (n *node) close() {
	t := n.t
	if t.Failed() {
		t.Log(n.LogTail())
	}
	ctx, cancel := context.WithTimeout(context.Background(), harness.Patience(2*time.Minute))
	defer cancel()
	if err := n.empty(ctx); err != nil {
		t.Errorf("remove all pods: %v", err)
	}
	if n.before != nil {
		n.checkLeaks(ctx)
	}
	err := n.Stop()
	if err := errors.Join(err, n.RemoveNetworks()); err != nil {
		t.Error(err)
	}
}

// checkLeaks fails the test if objects exist that are not in the baseline. It repeats
// the comparison for a while, because the daemon deletes layers in the background.
func (n *node) checkLeaks(ctx context.Context) {
	n.t.Helper()
	var leaked []string
	end := time.Now().Add(harness.Patience(15 * time.Second))
	for time.Now().Before(end) && ctx.Err() == nil {
		after, err := n.take()
		if err != nil {
			n.t.Error(err)
			return
		}
		if leaked = after.Since(n.before); len(leaked) == 0 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, l := range leaked {
		n.t.Errorf("leak: %s", l)
	}
}
