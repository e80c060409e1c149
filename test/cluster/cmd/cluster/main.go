// Cluster runs a Kubernetes cluster of criserver nodes on this machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/criserver/criserver/test/cluster"
	"github.com/criserver/criserver/test/cluster/machine"
)

const usage = `usage: cluster up   [-name NAME] [-nodes N] [-network routes|vxlan] [-handler runc|crun]
                    [-runtime COMMAND] [-top DIR]
       cluster down [-name NAME]
       cluster node [-name NAME] NODE COMMAND…

up starts a cluster, prints how to use it, and removes it on SIGINT, SIGTERM and SIGHUP.
down removes a cluster, also if the process of up was killed.
node runs a command in the namespaces of a node, or of the control plane (control).

-handler is the OCI runtime of pods without a RuntimeClass. -runtime is a shell command that starts another CRI runtime
in place of criserver. $CLUSTER_SOCKET in its environment is the path of the socket, $CLUSTER_DIR an empty directory,
$CLUSTER_REGISTRY the address of the registry, and $CLUSTER_HANDLER the value of -handler.
`

func main() {
	machine.Main()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	code, err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		code = 1
	}
	os.Exit(code)
}

func run(ctx context.Context, args []string) (code int, err error) {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return 2, nil
	}
	flags := flag.NewFlagSet(args[0], flag.ExitOnError)
	flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	var config cluster.Config
	flags.StringVar(&config.Name, "name", "demo", "")
	flags.IntVar(&config.Nodes, "nodes", 2, "")
	flags.StringVar(&config.Network, "network", cluster.Routes, "")
	flags.StringVar(&config.Handler, "handler", "", "")
	flags.StringVar(&config.RuntimeCommand, "runtime", "", "")
	flags.StringVar(&config.Top, "top", ".", "")
	if err := flags.Parse(args[1:]); err != nil {
		return 2, err
	}
	config.Dir = cluster.DefaultDir(config.Name)
	switch {
	case args[0] == "up" && flags.NArg() == 0:
		return 0, up(ctx, config)
	case args[0] == "down" && flags.NArg() == 0:
		return 0, cluster.Remove(ctx, config.Name, config.Dir)
	case args[0] == "node" && flags.NArg() >= 2:
		return runOnNode(ctx, config.Dir, flags.Arg(0), flags.Args()[1:])
	}
	fmt.Fprint(os.Stderr, usage)
	return 2, nil
}

func up(ctx context.Context, config cluster.Config) error {
	var err error
	if config.Top, err = filepath.Abs(config.Top); err != nil {
		return err
	}
	config.Output = func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	c, err := cluster.Start(ctx, config)
	if err != nil {
		return err
	}
	fmt.Printf(`
The cluster %[1]q runs. In another terminal:

    export KUBECONFIG=%[2]s PATH=%[3]s:$PATH
    kubectl get nodes -o wide
    kubectl create deployment web --image=docker.io/library/nginx:latest --replicas=4 --port=80
    kubectl expose deployment web --type=NodePort
    %[4]s node -name %[1]s node1 criserver network

Images come from a registry of the cluster: docker.io/library/nginx:latest, docker.io/library/busybox:latest and others
(bin/testimages list). Ctrl-C here, or "make cluster-down", removes the cluster.
`, config.Name, c.KubeconfigPath(), filepath.Join(config.Top, "bin", "kubernetes"),
		filepath.Join(config.Top, "bin", "cluster"))
	<-ctx.Done()
	fmt.Println("Removing the cluster …")
	return c.Stop()
}

// runOnNode runs a command in the namespaces of a machine and returns its exit code.
func runOnNode(ctx context.Context, dir, name string, args []string) (int, error) {
	pid, err := cluster.MachinePid(dir, name)
	if err != nil {
		return 1, err
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return 1, err
	}
	// Of two variables with the same name the last one is used.
	env := append(strings.Split(strings.TrimRight(string(environ), "\x00"), "\x00"), "TERM="+os.Getenv("TERM"))
	cmd := machine.CommandOn(ctx, pid, env, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}
