package cluster

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/criserver/criserver/test/cluster/machine"
	"github.com/criserver/criserver/test/harness"
)

const (
	busybox = "docker.io/library/busybox:latest"
	nginx   = "docker.io/library/nginx:latest"
)

// suite is the cluster that all tests of a run share.
var suite *Cluster

var (
	network = flag.String("network", Routes, "way between the nodes: routes or vxlan")
	handler = flag.String("handler", "", "OCI runtime of the pods: runc or crun; criserver selects one by default")
	runtime = flag.String("runtime", "", "shell command that starts another CRI runtime in place of criserver")
)

func TestMain(m *testing.M) {
	machine.Main()
	// The tests wait for the cluster most of the time.
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// run starts the cluster, runs the tests, and checks that nothing remains of their pods on the nodes and of the cluster
// on the host.
func run(m *testing.M) (code int, err error) {
	if err := removeFormer(); err != nil {
		return 1, err
	}
	before, err := hostObjects()
	if err != nil {
		return 1, err
	}
	top, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return 1, err
	}
	if err := os.MkdirAll(reportDir(top), 0o755); err != nil {
		return 1, err
	}
	ctx := context.Background()
	name := fmt.Sprint(testPrefix, os.Getpid())
	began := time.Now()
	suite, err = Start(ctx, Config{
		Name: name, Dir: DefaultDir(name), Top: top, Nodes: 2, Network: *network, Handler: *handler, RuntimeCommand: *runtime,
	})
	if err != nil {
		saveLogs(DefaultDir(name), top)
		return 1, errors.Join(err, os.RemoveAll(DefaultDir(name)))
	}
	fmt.Printf("cluster: %d nodes and DNS are ready after %v\n", len(suite.Nodes), time.Since(began).Round(100*time.Millisecond))
	code = m.Run()
	err = checkEmptyNodes(ctx)
	if code != 0 || err != nil {
		saveLogs(suite.Dir, top)
	}
	return code, errors.Join(err, suite.Stop(), checkHost(before))
}

// testPrefix begins the names of the clusters of tests.
const testPrefix = "test"

// removeFormer removes the clusters of earlier runs that were killed or have exceeded their time limit.
func removeFormer() error {
	dirs, err := filepath.Glob(DefaultDir(testPrefix + "[0-9]*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		pid, err := readProcess(filepath.Join(dir, processFile))
		if err != nil || pid != 0 {
			continue // being created or removed, or running
		}
		name := testPrefix + dir[len(DefaultDir(testPrefix)):]
		if err := Remove(context.Background(), name, dir); err != nil {
			return err
		}
	}
	return nil
}

func reportDir(top string) string { return filepath.Join(top, "test", "cluster", "report") }

// saveLogs copies the logs of the machines to the report directory.
func saveLogs(dir, top string) {
	logs, _ := filepath.Glob(filepath.Join(dir, "nodes", "*", "var", "log", "*.log"))
	control, _ := filepath.Glob(filepath.Join(dir, "control", "var", "log", "*.log"))
	for _, file := range append(logs, control...) {
		machine := filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(file))))
		text, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(reportDir(top), machine+"-"+filepath.Base(file)), text, 0o644)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "save logs:", err)
		}
	}
}

// eventually repeats check until it returns nil, at least once, and fails the test after a time.
func eventually(t *testing.T, d time.Duration, check func() error) {
	t.Helper()
	end := time.Now().Add(harness.Patience(d))
	pause := 100 * time.Millisecond
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		time.Sleep(pause)
		pause = min(2*pause, harness.Patience(100*time.Millisecond)) // on a slow machine the check itself takes long
	}
}
