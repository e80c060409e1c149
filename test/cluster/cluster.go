package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/criserver/criserver/test/cluster/machine"
	"github.com/criserver/criserver/test/harness"
)

// Cluster is a running cluster.
type Cluster struct {
	Config
	Control *machine.Machine // runs the control plane, and is the LAN
	Nodes   []*Node

	tokens         map[string]string // by user
	scope          *scope            // holds the cgroup of the cluster where systemd manages cgroups, otherwise nil
	registriesConf string
	registry       net.Listener
	forwarder      net.Listener
	client         *http.Client

	mu    sync.Mutex // guards extra
	extra []*Node    // the nodes of AddNode, also those that were removed
}

// path returns the path of a file of the cluster on the host.
func (c *Config) path(parts ...string) string {
	return filepath.Join(append([]string{c.Dir}, parts...)...)
}

func (c *Cluster) searchPath() string {
	return filepath.Join(c.Top, "bin") + ":" + filepath.Join(c.Top, "bin", "kubernetes")
}

// Start starts a cluster and waits until all nodes are ready and DNS works. If it returns an error, it has removed
// everything except the logs.
func Start(ctx context.Context, config Config) (*Cluster, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	if err := makeDir(config.Dir); err != nil {
		return nil, err
	}
	c := &Cluster{Config: config, tokens: map[string]string{}}
	for i := range config.Nodes {
		c.Nodes = append(c.Nodes, &Node{Name: fmt.Sprintf("node%d", i+1), number: i + 1, cluster: c})
	}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

// makeDir creates the directory of a cluster and the file that names the process that runs the cluster. It fails if a
// cluster has the directory.
func makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o711); err != nil {
		return fmt.Errorf("start cluster: %w; remove a former cluster with make cluster-down", err)
	}
	if err := os.Chmod(dir, 0o711); err != nil { // users of pods with a user namespace must be able to enter
		return err
	}
	return writeProcess(filepath.Join(dir, processFile), os.Getpid())
}

func (c *Cluster) start(ctx context.Context) error {
	if err := errors.Join(loadBridgeFilter(ctx), c.writeCredentials()); err != nil {
		return err
	}
	if managedBySystemd() {
		var err error
		if c.scope, err = startScope(ctx, c.Name); err != nil {
			return err
		}
	}
	dirs, err := makeCgroup(cgroupOf(c.Name) + "/control")
	if err != nil {
		return err
	}
	if c.Control, err = machine.Start(machine.Config{Name: "control", Dir: c.path("control"), Cgroups: dirs, Path: c.searchPath()}); err != nil {
		return err
	}
	if err := writeProcess(c.path("control", processFile), c.Control.Pid()); err != nil {
		return err
	}
	if err := errors.Join(c.setUpLAN(ctx), c.StartRegistry(ctx)); err != nil {
		return err
	}
	if c.client, err = c.newClient(); err != nil {
		return err
	}
	if err := c.forward(ctx); err != nil {
		return err
	}
	c.Output("Starting the control plane …")
	started := make(chan error, 1)
	go func() { started <- c.startControlPlane(ctx) }()
	errs := make([]error, len(c.Nodes))
	var group sync.WaitGroup
	for i, n := range c.Nodes {
		group.Go(func() {
			if errs[i] = n.boot(ctx); errs[i] == nil {
				errs[i] = n.StartRuntime(ctx)
			}
		})
	}
	group.Wait()
	if err := errors.Join(append(errs, <-started)...); err != nil {
		return err
	}
	c.Output("Starting %d nodes …", len(c.Nodes))
	for _, n := range c.Nodes {
		if err := errors.Join(n.StartKubelet(), n.startProxy()); err != nil {
			return err
		}
	}
	if err := c.addNodePermissions(ctx); err != nil {
		return err
	}
	if err := c.installDNS(ctx); err != nil {
		return err
	}
	if err := c.waitForNodes(ctx); err != nil {
		return err
	}
	if err := c.connectPods(ctx); err != nil {
		return err
	}
	c.Output("Waiting for DNS …")
	_, err = c.Kubectl(ctx, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout="+harness.Patience(60*time.Second).String())
	return err
}
